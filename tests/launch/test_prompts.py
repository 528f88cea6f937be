"""Texts from prompts, by the launcher."""

import json

from tests.published.helpers import make_folder


def test_prompts_are_gone_on_from(tmp_path, main):
    folder = make_folder(tmp_path / "model")
    flags = [f"--workdir=hf:{folder}", "--mode=sample", "--config.sample.length=6"]
    one = main(*flags, "--prompt=full of")
    assert one.returncode == 0 and one.stdout.startswith("full of"), one.stderr
    out, prompts = tmp_path / "out.jsonl", tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps({"prompt": f"line\n{n}"}) for n in range(20)))
    many = main(*flags, f"--prompts={prompts}", "--count=2", f"--out={out}")
    assert many.returncode == 0, many.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 40 and [line["prompt"] for line in lines[:4]] == ["line\n0", "line\n0", "line\n1", "line\n1"]
    assert all(0 < line["tokens"] <= 6 and line["log_prob"] < 0 for line in lines)
    assert lines[0]["text"] != lines[1]["text"]
    prompts.write_text("{}")
    for wrong, text in (
        ([*flags, f"--prompts={prompts}"], 'expected a JSON object with a "prompt"'),
        ([*flags, "--prompts=nowhere"], "there is no such file"),
        ([flags[0]], "is no run"),
        (["--config=configs/quickstart.py", "--prompt=a"], "--prompt is read with --mode=sample"),
    ):
        ended = main(*wrong)
        assert ended.returncode == 2 and text in ended.stderr
