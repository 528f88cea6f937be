"""The tasks of lm-evaluation-harness, on a run or a published model:

    python -m launch.lm_eval --model_args workdir=RUN[,step=last|best|N][,max_length=N] --tasks TASK [option of lm_eval]

It is the command `lm_eval run` with `--model gentrain`, which it adds to the models that lm_eval knows; install that
beside gentrain with `pip install lm-eval`. In Python, import this module first: lm_eval.simple_evaluate("gentrain", …).

A sequence begins as in training: with BOS in a run, and in a published model with what its own tokenizer adds, so that
log-likelihoods are those of `gentrain.load(RUN).score` and of lm_eval's `hf` on the exported folder. Where a tokenizer
adds a begin token, `hf` scores that too in loglikelihood_rolling, and this does not.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from gentrain import api
from gentrain.datasets.published_tokenizer import PublishedTokenizer

NEW_TOKENS = 256  # of an answer, where a task does not say how many


@register_model("gentrain")
class Gentrain(TemplateLM):
    """workdir: a run's, or a published model's name. max_length: the most tokens that are seen at once."""

    def __init__(
        self,
        workdir: str,
        step: int | str | None = None,
        max_length: int | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ):
        super().__init__()
        self.run = api.load(workdir, step=step)
        self.tokenizer, self.bos = self.run.tokenizer, self.run.spec.vocab
        published = isinstance(self.tokenizer, PublishedTokenizer)
        self.always = [] if published else [self.bos]  # what every sequence begins with
        self.begins_seen = not published or self.tokenizer.adds_begin
        self.max_length = int(max_length or (2048 if published else self.run.spec.length))
        self.batch_size = int(str(batch_size)) if str(batch_size).isdecimal() else 8

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.end

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has nothing before it."""
        return self.bos if self.begins_seen else self.tokenizer.begin

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Numbers of tokens, in which the one that begins a sequence is BOS."""
        tokens = self.tokenizer.encode_text(string).tolist()
        adds = isinstance(self.tokenizer, PublishedTokenizer) and self.tokenizer.adds_begin
        return [self.bos, *tokens] if adds and add_special_tokens is not False else tokens

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """log Q of whole texts, nats, by windows that each see max_length tokens at most."""
        found = []
        for (text,) in (request.args for request in requests):
            windows = utils.get_rolling_token_windows(
                self.tok_encode(text, add_special_tokens=False), self.prefix_token_id, self.max_length, context_len=1
            )
            parts = [(("", ""), *utils.make_disjoint_window(window)) for window in windows]
            found.append(sum(log_prob for log_prob, _ in self._loglikelihood_tokens(parts)))
        return found

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        """(log Q of the continuation, nats, whether each of its tokens is the likeliest) of (texts, context,
        continuation)."""
        rows, counts = [], []
        for _, context, continuation in requests:
            before = [] if context[:1] == [self.bos] else self.always
            row = np.array([*before, *context, *continuation], np.int32)[-self.max_length - 1 :]
            rows.append((row[:-1], row[1:]))
            counts.append(len(continuation))
        order = sorted(range(len(rows)), key=lambda number: -len(rows[number][0]))
        answers: dict[int, tuple[float, bool]] = {}
        for start in range(0, len(order), self.batch_size):
            numbers = order[start : start + self.batch_size]
            for number, (nlls, likeliest) in zip(numbers, self.run.score([rows[n] for n in numbers]), strict=True):
                last = slice(len(nlls) - counts[number], None)
                answers[number] = -float(nlls[last].sum()), bool(likeliest[last].all())
        return [answers[number] for number in range(len(rows))]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What follows each context, up to the first of the texts at which it shall stop."""
        alike: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            alike[repr(sorted(request.args[1].items()))].append(number)
        answers: dict[int, str] = {}
        for numbers in alike.values():
            said = requests[numbers[0]].args[1]
            law: dict[str, Any] = {"top_k": int(said.get("top_k", 0)), "top_p": float(said.get("top_p", 1.0))}
            law["temperature"] = float(said.get("temperature", 1.0)) if said.get("do_sample") else 0.0
            length = int(said.get("max_gen_toks", NEW_TOKENS))
            until = said.get("until", [])
            for start in range(0, len(numbers), self.batch_size):
                batch = numbers[start : start + self.batch_size]
                drawn = self.run.generate([requests[n].args[0] for n in batch], length=length, **law)
                answers |= {n: stop_at(one.text, until) for n, one in zip(batch, drawn, strict=True)}
        return [answers[number] for number in range(len(requests))]


def stop_at(text: str, until: str | Sequence[str]) -> str:
    """The text before the first of what it shall stop at."""
    for end in [until] if isinstance(until, str) else until:
        text = text.partition(end)[0] if end else text
    return text


def main() -> None:
    """lm_eval's own command line, with this model."""
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm_eval", "run", "--model", "gentrain", *sys.argv[1:]]
    cli_evaluate()


if __name__ == "__main__":
    main()
