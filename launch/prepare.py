"""Prepares what a config's data needs, once, where there is a network: python -m launch.prepare --config configs/x.py

Fetches pinned packages, downloads and prepares TFDS sets (as array_record, read without TensorFlow) and encodes the
corpus into the cache. With --workdir the tokenizer that the run will use is learned and kept there as well.
"""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from gentrain import config as config_rules
from gentrain import data
from gentrain.data import corpus, prepared
from gentrain.errors import GentrainError

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run will keep its tokenizer; nothing is kept if unset.")


def main(argv: list[str]) -> None:
    del argv
    try:
        config_rules.validate(CONFIG.value)
        prepare(CONFIG.value, Path(WORKDIR.value) if WORKDIR.value else None)
    except GentrainError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def prepare(config: ConfigDict, workdir: Path | None) -> None:
    names = [source[0] for source in config.data.sources] or [config.data.name]
    for name in names:
        if name.startswith("tfds:"):
            print(f"{name}: {prepared.prepare(name.removeprefix('tfds:'))}")
    found = data.build(config, workdir)
    for split in corpus.SPLITS:
        try:
            part = found.split(split)
        except GentrainError:
            print(f"{split}: empty")
            continue
        documents = len(part.documents[1]) - 1
        size = f"{part.tokens:,} tokens, {part.characters:,} characters, {part.batches:,} batches"
        print(f"{split}: {documents:,} documents, {size}")
    print(f"vocabulary: {found.spec.vocab}; rows of {found.spec.length}; {found.summary['examples']:,} train examples")
    for name, source in found.summary["sources"].items():
        print(f"{name}: share {source['share']:.4f}, {source['epochs']:.2f} epochs in {config.steps} steps")
    print(f"cache: {corpus.cache()}" + (f"; tokenizer: {workdir}" if workdir and found.spec.kind == "text" else ""))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
