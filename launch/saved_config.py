"""The config of a run, by its workdir: what the launcher takes where it is given a workdir and no config file."""

from pathlib import Path

from ml_collections import ConfigDict

from gentrain.options import identity


def get_config(workdir: str) -> ConfigDict:
    return identity.saved(Path(workdir))
