"""Texts from a run or a published model, which go on from prompts or from nothing: what --mode=sample may do."""

import json
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

from gentrain import api, console
from gentrain.errors import ConfigError

BATCH = 32  # prompts that are gone on from at once


def sample(values: flags.FlagValues, config: ConfigDict, name: str, allow: Collection[str]) -> None:
    """Draws sample.count continuations of each prompt, by the other options of `sample`, and says or writes them."""
    prompts = read_prompts(values)
    model = api.load(name, allow, step=values.step)
    options = config.sample
    if len(prompts) == 1 and options.count == 1 and not values.out:
        law = {key: options[key] for key in ("temperature", "top_k", "top_p", "length", "seed")}
        console.write(prompts[0])
        for piece in model.stream(prompts[0], **law):
            console.write(piece)
        return console.write("\n")
    drawn = draw(model, options, [prompt for prompt in prompts for _ in range(options.count)], quiet=not values.out)
    if values.out:
        return write(Path(values.out), drawn)
    for prompt, continuation in drawn:
        console.say(prompt + continuation.text)


def draw(
    model: api.Loaded, options: ConfigDict, prompts: Sequence[str], quiet: bool
) -> Iterator[tuple[str, api.Continuation]]:
    """Each prompt with its continuation, a batch at a time; the last is filled up, or it would compile anew."""
    law, key = api.Law(options.temperature, options.top_k, options.top_p), jax.random.key(options.seed)
    with tqdm(total=len(prompts), file=sys.stderr, unit=" texts", disable=quiet) as bar:
        for begin in range(0, len(prompts), BATCH):
            batch = prompts[begin : begin + BATCH]
            filled = [*batch, *[batch[-1]] * (BATCH - len(batch))] if len(prompts) > BATCH else batch
            yield from zip(
                batch, model.go_on(filled, options.length, law, jax.random.fold_in(key, begin)), strict=False
            )
            bar.update(len(batch))


def write(path: Path, drawn: Iterator[tuple[str, api.Continuation]]) -> None:
    """One JSON object a line: prompt, text, how many tokens it has, their log-probability in nats, and whether it ended
    by itself."""
    with path.open("w") as file:
        for prompt, continuation in drawn:
            text, tokens, log_prob, ended = continuation
            line = {"prompt": prompt, "text": text, "tokens": len(tokens), "log_prob": log_prob, "ended": ended}
            print(json.dumps(line), file=file, flush=True)
    console.say(str(path))


def read_prompts(values: flags.FlagValues) -> list[str]:
    """Those of the flags; where there are none, an empty one. Raises ConfigError for a file that has others."""
    prompts = list(values.prompt)
    for number, line in enumerate(Path(values.prompts).read_text().splitlines() if values.prompts else [], 1):
        if not values.prompts.endswith(".jsonl"):
            prompts.append(line)
            continue
        try:
            prompts.append(json.loads(line)["prompt"])
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f'{values.prompts}:{number}: expected a JSON object with a "prompt"') from None
    return prompts or [""]
