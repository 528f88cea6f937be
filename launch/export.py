"""Writes the generator of a run as a Hugging Face folder, with its tokenizer and a model card:

    python -m launch.export --workdir RUN --out DIR [--step=last|best|N] [--dtype=float32|bfloat16|float16] [--raw]

`transformers` and `--config.init_from=hf:DIR` read such a folder. best: by the run's evaluate.keep_best, or else by
its held-out negative log-likelihood. --raw: the parameters themselves where the run averages them over steps.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gentrain import api, files, plugins
from gentrain.datasets.tokenizer_files import published_files
from gentrain.errors import ConfigError, GentrainError
from gentrain.options.tree import plugin_options
from gentrain.published import Leaf
from gentrain.published.folder import dtype_of
from gentrain.published.writing import write_folder
from launch import cli, model_card

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def main(argv: Sequence[str] | None = None) -> int:
    """The command as a function; returns the exit code."""
    parser = argparse.ArgumentParser("python -m launch.export", description=__doc__, add_help=True)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--step", default="last")
    parser.add_argument("--dtype", choices=DTYPES)
    parser.add_argument("--raw", action="store_true")
    arguments = parser.parse_args(argv)
    try:
        run = api.load(arguments.workdir, step=arguments.step, averaged=not arguments.raw)
        export(run, arguments.workdir, arguments.out, arguments.dtype)
    except GentrainError as error:
        cli.say(f"{type(error).__name__}: {error}")
        return error.exit_code
    return 0


def export(run: api.Loaded, workdir: Path, out: Path, dtype: str | None) -> None:
    """Writes the folder. Raises ConfigError for a network that has no place in a published family."""
    network, spec = run.config.model, run.spec
    family = plugins.companion("models", network.name, "published")
    if family is None:
        raise ConfigError(f"model.name={network.name!r} is not of a published family: expected a Transformer or GPT-2")
    if spec.context_vocab or spec.end is None:
        raise ConfigError("published families are of texts that end, without contexts")
    tokenizer = run.tokenizer
    begin = tokenizer.end if tokenizer.begin is None else tokenizer.begin
    options, params = family.to_publish(plugin_options("models", network.name).of(network), run.params, begin)
    config = family.config_of(options)
    dtype = dtype or network.param_dtype
    config |= {"vocab_size": spec.vocab, "bos_token_id": begin, "eos_token_id": spec.end, "dtype": dtype}
    leaves = family.leaves(options)
    kind = dtype_of(DTYPES[dtype])
    write_folder(out, config, ((name, one.astype(kind)) for name, one in tensors(leaves, params, begin)))
    beside = published_files(tokenizer)
    for name, content in (beside | {"README.md": model_card.of(run, workdir, dtype).encode()}).items():
        files.write_bytes(out / name, content)
    if not beside:
        cli.say(f"without a tokenizer.json: there is none for data.tokenizer={run.config.data.tokenizer!r}")
    cli.say(f"written: {out}, step {run.step:,}")


def tensors(leaves: Sequence[Leaf], params: Any, begin: int) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor by its published name, one at a time."""
    rows = {leaf.tensor: leaf for leaf in leaves if leaf.begin and leaf.written}
    for leaf in leaves:
        value = parameter(params, leaf.path)
        if leaf.begin:
            continue
        for layer in range(len(value)) if "{}" in leaf.tensor else [None]:
            one = np.array(value if layer is None else value[layer])
            if leaf.tensor in rows:
                one[begin] = np.asarray(parameter(params, rows[leaf.tensor].path))
            yield leaf.tensor.format(layer), one.T if leaf.transposed else one


def parameter(params: Any, path: str) -> Any:
    """One parameter of a tree."""
    for name in path.split("/"):
        params = params[name]
    return params


if __name__ == "__main__":
    sys.exit(main())
