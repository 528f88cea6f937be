"""lm-evaluation-harness gets the log-likelihoods that gentrain itself has, and those that it has of the same model."""

from types import SimpleNamespace

import numpy as np
import pytest

import gentrain
from tests.published.helpers import TEXT, make_folder

lm_eval = pytest.importorskip("lm_eval")
pytest.importorskip("torch")
pytestmark = pytest.mark.slow
PAIRS = [("A tale told by", " an idiot"), ("", "signifying nothing"), ("full of ", "sound"), (TEXT * 3, " and fury")]


def requests(*arguments):
    return [SimpleNamespace(args=one) for one in arguments]


@pytest.mark.parametrize("adds_begin", [False, True])
def test_a_published_model_has_the_numbers_of_their_own_adapter(adds_begin, tmp_path):
    from lm_eval.models.huggingface import HFLM

    from launch.lm_eval import Gentrain

    folder = make_folder(tmp_path / "model", adds_begin=adds_begin)
    ours, theirs = (
        Gentrain(f"hf:{folder}", max_length=64),
        HFLM(str(folder), dtype="float32", max_length=64, device="cpu"),
    )
    for one, other in zip(ours.loglikelihood(requests(*PAIRS)), theirs.loglikelihood(requests(*PAIRS)), strict=True):
        assert one[0] == pytest.approx(other[0], rel=1e-5) and one[1] == other[1]
    texts = [(TEXT * 4,), ("a",)]
    found, expected = (one.loglikelihood_rolling(requests(*texts)) for one in (ours, theirs))
    if adds_begin:  # they score <s> given <s>, too, in the first window
        inputs, tokens = np.array([ours.bos]), np.array([0])
        expected = [one + float(ours.run.score([(inputs, tokens)])[0][0][0]) for one in expected[1:]]
        found = found[1:]
    assert found == pytest.approx(expected, rel=1e-5)
    asked = requests(*((context, {"until": ["\n"], "max_gen_toks": 6, "do_sample": False}) for context, _ in PAIRS[:1]))
    assert ours.generate_until(asked) == theirs.generate_until(asked)


def test_a_run_has_the_numbers_of_its_own_evaluator(config, tmp_path, run_on_one_device, monkeypatch):
    from gentrain import train
    from launch.lm_eval import Gentrain
    from tests.helpers import StopAt

    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "cache"))
    lines = [f"{word} and {word}" for word in ("sound", "fury", "idiot", "tale")] * 10
    (tmp_path / "a.txt").write_text("\n".join(lines))
    config.data.name, config.data.text.unit = f"text:{tmp_path / 'a.txt'}", "line"
    config.data.length, config.steps, config.log.loggers = 24, 3, ()
    config.evaluate.evaluators, config.evaluate.split = ("likelihood",), "train"
    train.train(config, tmp_path / "run", StopAt())
    run, ours = gentrain.load(tmp_path / "run"), Gentrain(str(tmp_path / "run"))
    text = "sound and sound"
    (rolling,) = ours.loglikelihood_rolling(requests((text,)))
    nlls, _ = run.score([run.tokenizer.scored(text)])[0]
    assert rolling == pytest.approx(-float(nlls[:-1].sum()), rel=1e-5)  # the end is not among what they ask for
    assert np.isclose(run.log_prob([text])[0], -nlls.sum())
