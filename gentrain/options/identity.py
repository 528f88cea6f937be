"""Is it the same run? A workdir is gone on with by a config that reads the same values of what makes it this run."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gentrain import files
from gentrain.errors import CheckpointError, ConfigError
from gentrain.options.tree import Run, as_tuple, declared_fields, default_config, flatten


def resolved(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON holds it, flat (tuples become lists)."""
    return json.loads(json.dumps(flatten(config)))


def saved(workdir: Path) -> ConfigDict:
    """The config of the run in a workdir.

    Raises CheckpointError where there is none or it is damaged, ConfigError for one of another version.
    """
    flat = files.require_json(workdir / "config.json")
    if not flat:
        raise CheckpointError(f"{workdir} is no run: it has no config.json")
    config = default_config()
    if flat.keys() != flatten(config).keys():
        raise ConfigError(f"{workdir} holds a run of another version of gentrain: its options differ")
    config.update_from_flattened_dict({key: as_tuple(value) for key, value in flat.items()})
    return config


def section(flat: dict[str, Any], name: str) -> ConfigDict:
    """One section of a config that was written down flat, by attribute again."""
    start = f"{name}."
    found = {key.removeprefix(start): value for key, value in flat.items() if key.startswith(start)}
    return ConfigDict({key: value for key, value in found.items() if "." not in key})


def identity(config: ConfigDict) -> dict[str, Any]:
    """What makes a run the run it is: every option that it reads and that may not change while it goes on."""
    fields, values = declared_fields(), resolved(config)
    return {key: values[key] for key in sorted(Run(config).reads()) if not fields[key].metadata["may_change"]}


def check_same_run(config: ConfigDict, path: Path) -> list[str]:
    """Compares with the config.json of an earlier start in this workdir; returns the harmless changes, a line each.

    Raises ConfigError where the workdir holds another experiment, or one of another version of this program, and
    CheckpointError where config.json is damaged.
    """
    if not path.exists():
        return []
    old, new = files.require_json(path), resolved(config)
    if old.keys() != new.keys():
        other = sorted(old.keys() ^ new.keys())[0]
        raise ConfigError(
            f"{path.parent} holds a run of another version of gentrain (its options differ, as {other}); choose another"
            " --workdir or remove it"
        )
    lines = {key: f"{key}: {old[key]!r} -> {new[key]!r}" for key in sorted(new) if old[key] != new[key]}
    other_run = [lines[key] for key in identity(config) if key in lines]
    if other_run:
        found = "; ".join(other_run)
        raise ConfigError(
            f"{path.parent} holds a run with another config ({found}); choose another --workdir or remove it"
        )
    return list(lines.values())
