"""Prepares what a config's data needs, once, where there is a network: python -m launch.prepare --config configs/x.py

Fetches pinned packages, downloads and prepares TFDS sets (as array_record, read without TensorFlow) and encodes the
corpus into the cache. With --workdir the tokenizer that the run will use is learned and kept there as well.
"""

import sys
from pathlib import Path

from ml_collections import ConfigDict

from gentrain import plugins
from gentrain.datasets import build, store
from gentrain.datasets.spec import TextSpec
from gentrain.errors import GentrainError
from gentrain.options.tree import Run
from launch import cli


def main(argv: list[str]) -> int:
    """The command as a function; returns the exit code."""
    try:
        if cli.asks_for_help(argv):
            print(__doc__)
            return 0
        command = cli.parse(argv)
        prepare(command.config, command.workdir if command.flags.workdir else None)
    except GentrainError as error:
        cli.say(f"{type(error).__name__}: {error}")
        return error.exit_code
    return 0


def prepare(config: ConfigDict, workdir: Path | None) -> None:
    """Fetches what each source needs, encodes the corpus and prints how much there is."""
    for full_name in Run(config).sources:
        name, _, argument = full_name.partition(":")
        source = plugins.load("datasets.sources", name)
        if hasattr(source, "prepare"):
            print(f"{full_name}: {source.prepare(argument)}")
    data = build.build(config, workdir)
    for split in store.SPLITS:
        try:
            part = data.split(split)
        except GentrainError:
            print(f"{split}: empty")
            continue
        documents = len(part.documents[1]) - 1
        size = f"{part.tokens:,} tokens, {part.characters:,} characters, {part.batches:,} batches"
        print(f"{split}: {documents:,} documents, {size}")
    if data.spec.context_vocab:
        print(f"context: {data.spec.context_vocab} symbols, shape {data.spec.context_shape}")
    print(f"vocabulary: {data.spec.vocab}; rows of {data.spec.length}; {data.summary['examples']:,} train examples")
    for remark in build.remarks(data.summary):
        print(remark)
    for name, source in data.summary["sources"].items():
        print(f"{name}: share {source['share']:.4f}, {source['epochs']:.2f} epochs in {config.steps} steps")
    tokenizer = f"; tokenizer: {workdir}" if workdir and isinstance(data.spec, TextSpec) else ""
    print(f"cache: {store.cache()}{tokenizer}")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
