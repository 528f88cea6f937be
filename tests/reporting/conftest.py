import json

import pytest

from gentrain import files


@pytest.fixture
def config_json():
    """The least of a run's config.json that its report reads."""
    return {
        "steps": 2,
        "seed": 0,
        "objective.name": "likelihood",
        "model.name": "lstm",
        "data.name": "surnames",
        "data.batch_size": 4,
        "sample.count": 16,
        "evaluate.evaluators": ["likelihood", "baselines", "transcription", "samples"],
    }


@pytest.fixture
def write_run(config_json):
    """write_run(folder, records, changes): a run's metrics.jsonl and config.json."""

    def write(folder, records, changes=None):
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps({"time": 0, **record}) + "\n" for record in sorted(records, key=lambda record: record["step"])
        ]
        (folder / "metrics.jsonl").write_text("".join(lines))
        files.write_json(folder / "config.json", config_json | (changes or {}))

    return write
