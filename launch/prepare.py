"""Prepares what a config's data needs, once, where there is a network: python -m launch.prepare --config configs/x.py

Fetches pinned packages, downloads and prepares TFDS sets (as array_record, read without TensorFlow) and encodes the
corpus into the cache. With --workdir the tokenizer that the run will use is learned and kept there as well.
"""

import sys
from pathlib import Path

from ml_collections import ConfigDict

from gentrain import data
from gentrain.data import corpus, prepared
from gentrain.errors import GentrainError
from launch.__main__ import parse


def main(argv: list[str]) -> int:
    """The command as a function; returns the exit code."""
    try:
        values, config, workdir = parse(argv)
        prepare(config, workdir if values.workdir else None)
    except GentrainError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def prepare(config: ConfigDict, workdir: Path | None) -> None:
    names = [source[0] for source in config.data.sources] or [config.data.name]
    for name in (name.removeprefix("captions:") for name in names):
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
    if found.spec.context_vocab:
        print(f"context: {found.spec.context_vocab} symbols, shape {found.spec.context_shape}")
    print(f"vocabulary: {found.spec.vocab}; rows of {found.spec.length}; {found.summary['examples']:,} train examples")
    for name, source in found.summary["sources"].items():
        print(f"{name}: share {source['share']:.4f}, {source['epochs']:.2f} epochs in {config.steps} steps")
    print(f"cache: {corpus.cache()}" + (f"; tokenizer: {workdir}" if workdir and found.spec.kind == "text" else ""))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
