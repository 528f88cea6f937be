"""Runs the variants of a config one after another, each in a folder of its own, and reports across them."""

from collections.abc import Collection
from pathlib import Path

from ml_collections import ConfigDict

from gentrain.options import check
from gentrain.runtime import signals


def sweep(config: ConfigDict, workdir: Path, mode: str, stop: signals.Stop, allow: Collection[str] = ()) -> None:
    """Trains (or evaluates, or samples) every variant; what was done before is not done again."""
    import jax

    from gentrain import train
    from gentrain.reporting import comparison

    variants = check.variants(config)
    for number, (name, variant) in enumerate(variants.items(), 1):
        if jax.process_index() == 0:
            print(f"[{number}/{len(variants)}] {name}", flush=True)
        if mode == "train":
            train.train(variant, workdir / name, stop, allow)
        else:
            train.look(variant, workdir / name, mode, allow)
    if mode == "train" and jax.process_index() == 0:
        print(f"all done: {comparison.compare(config, workdir, list(variants))}")
