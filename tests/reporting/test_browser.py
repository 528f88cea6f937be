"""The page in a browser: no error, nothing wider than the screen, curves that are drawn and can be switched off.

Skipped where there is no Chromium (on Debian: apt-get install chromium) or no Playwright, which drives it.
"""

import math
import shutil

import numpy as np
import pytest

from gentrain.reporting import plots, report

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page_file(tmp_path, write_run):
    """A report on fifteen variants of two seeds, with texts, pictures, a figure, levels, and names that are long."""
    evaluators = {"evaluate.evaluators": ["likelihood", "baselines", "exact", "samples"]}
    folders = {}
    for number in range(15):
        for seed in range(2):
            name = f"{number},seed={seed}"
            folders[name] = tmp_path / name
            lines = [{"step": step, "valid/nll": math.exp(-step) + number + seed / 9, "baseline/best_ngram": 3.0}
                     for step in range(6)]  # fmt: skip
            lines[-1] |= {"exact/forward_kl": 0.1 + number, "exact/reverse_kl": 0.2 * 2.0**number}
            lines[-1] |= {f"exact/marginal_{place}_0": 0.5 for place in range(9)}
            write_run(
                folders[name],
                lines,
                {"seed": seed, "a.rather_long_option": "x" * 40 * (number == 3) + str(number)} | evaluators,
            )
        samples = folders[f"{number},seed=0"] / "samples"
        samples.mkdir()
        if number % 2:
            plots.image_grid(np.zeros((16, 8, 8, 1), np.uint8), samples / "0000005.png")
        else:
            (samples / "0000005.txt").write_text("w" * 300 + "\n</script><b>\n")
    return report.compare(folders, tmp_path, {"lost": "Diverged: " + "9" * 200}, ["rewards"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 880, 390])
def test_the_page_fits_and_has_no_error(browser, page_file, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
    page.goto(page_file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    page.wait_for_function(
        "document.querySelectorAll('.chart').length === document.querySelectorAll('.chart canvas').length"
    )
    assert not said
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")
    assert page.locator("#conclusion").bounding_box()["y"] < 100
    context.close()


def test_a_variant_is_switched_off_in_every_picture_and_values_are_read_with_the_mouse(browser, page_file):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(page_file.as_uri())
    chart = page.locator(".chart").first
    chart.scroll_into_view_if_needed()
    chart.locator(".u-over").hover(position={"x": 5, "y": 50})
    first = chart.locator("tr.u-series").nth(1)
    assert float(first.locator(".u-value").inner_text()) == pytest.approx(1.0556, rel=1e-3)
    mark = page.locator('svg [data-variant="0"]').first
    assert mark.is_visible() and "u-off" not in first.get_attribute("class")
    page.locator(".chip").first.click()
    assert not mark.is_visible() and "u-off" in first.get_attribute("class")
    page.close()


def test_what_is_printed_from_a_dark_screen_is_light(browser, page_file, tmp_path):
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").stat().st_size > 20_000
    context.close()
