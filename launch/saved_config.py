"""The config of a run by its workdir, or of a published model by its name: what the launcher takes where it is given
that and no config file."""

from pathlib import Path

from ml_collections import ConfigDict

from gentrain.options import identity, tree
from gentrain.options.fit import fit
from gentrain.published import families


def get_config(workdir: str) -> ConfigDict:
    if not families.is_published(workdir):
        return identity.saved(Path(workdir))
    config = tree.default_config()
    config.init_from = workdir
    fit(config)
    return config
