"""How often answers to held-out contexts are wrong: the phonemes of a spelling, the caption of a picture."""

from itertools import zip_longest

import jax
import numpy as np
from ml_collections import ConfigDict
from sacrebleu.metrics import BLEU

from gentrain import decode, sharding
from gentrain.datasets.build import Data
from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.objectives.base import Objective
from gentrain.sums import Metric, Sum, mean

METRICS = {
    "<split>/token_error_rate": Metric("share", "lower", "insertions, deletions and substitutions by tokens"),
    "<split>/sequence_error_rate": Metric("share", "lower", "answers that are not exactly right"),
    "<split>/bleu": Metric("0 to 100", "higher", "corpus BLEU of the answers, sacrebleu's 13a tokens"),
}


def build(config: ConfigDict, objective: Objective, data: Data, mesh):
    """The likeliest answer that a beam of evaluate.transcription.beam finds for each context of a split, against what is written
    there, named `<split>/…`:

    token_error_rate: insertions, deletions and substitutions / tokens, the end of a document not counted;
    sequence_error_rate: share of answers that are not exactly right; for text bleu: of the corpus, 0 to 100, words and
    punctuation marks told apart as sacrebleu does by default (13a).

    Rows of the same context are one example with several references: bleu takes all of them, the rates the closest.
    With evaluate.batches, an estimate from that many batches. Raises ConfigError for data that this cannot be said of.
    """
    spec, name, size, model = data.spec, config.evaluate.split, config.data.batch_size, objective.model
    needs = f"evaluator 'transcription' compares what was answered to contexts, and {config.data.name} "
    if not spec.context_vocab:
        raise ConfigError(f"{needs}gives none: set data.conditional, or take it out of evaluate.evaluators")
    if spec.end is None:
        raise ConfigError(f"{needs}has answers that never end: take it out of evaluate.evaluators")
    split = data.split(name)
    batches = min(config.evaluate.batches or split.batches, split.batches)
    width = config.evaluate.transcription.beam

    def answer_batch(params, batch):
        likely = decode.beam_search(model, params, batch["context"], spec.length, width, end=spec.end)
        return batch["context"], likely.tokens, likely.mask, batch["tokens"], batch["mask"]

    answer = sharding.compile_on(
        mesh, answer_batch
    )  # on every device: each process groups all rows and counts the same

    def evaluate(params, key):
        put = (sharding.put(split.batch(i), mesh, size) for i in range(batches))
        rows = [jax.device_get(answer(params["generator"], batch)) for batch in put]
        context, answered, answer_mask, tokens, mask = (np.concatenate(field) for field in zip(*rows, strict=True))
        real = mask.any(-1)  # not the filler of the last batch
        answers = documents(answered[real], (answer_mask & (answered != spec.end))[real])
        references = documents(tokens[real], (mask & (tokens != spec.end))[real])
        numbers: dict[bytes, int] = {}
        example = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in context[real]])
        answers = [answers[row] for row in np.unique(example, return_index=True)[1]]
        measured = error_rates(answers, references, example)
        if isinstance(spec, TextSpec):
            texts = [spec.decode(tokens) for tokens in references]
            measured["bleu"] = bleu([spec.decode(tokens) for tokens in answers], texts, example)
        return {f"{name}/{label}": value for label, value in measured.items()}

    return evaluate


def documents(tokens: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    """What the mask shows of each row."""
    return [row[keep] for row, keep in zip(tokens, mask, strict=True)]


def error_rates(answers: list[np.ndarray], references: list[np.ndarray], example: np.ndarray) -> dict[str, float]:
    """Shares of wrong tokens and sequences: answers[example[i]] was to be references[i], or another of its example."""
    distance = edit_distances([answers[i] for i in example], references)
    order = np.lexsort((distance, example))
    closest = order[np.unique(example[order], return_index=True)[1]]
    wrong, tokens = distance[closest], sum(len(references[i]) for i in closest)
    return {"token_error_rate": mean(Sum(wrong.sum(), tokens)), "sequence_error_rate": float(np.mean(wrong > 0))}


def edit_distances(ones: list[np.ndarray], others: list[np.ndarray]) -> np.ndarray:
    """Fewest insertions, deletions and substitutions from each of ones to its counterpart in others, (n,) int.

    d(i, j) = min(d(i-1, j) + 1, d(i, j-1) + 1, d(i-1, j-1) + [a_i != b_j]), row after row for all pairs at once.
    Wagner & Fischer 1974.
    """
    (a, a_length), (b, b_length) = padded(ones), padded(others)
    place = np.arange(b.shape[1] + 1)[None, :]
    row = np.repeat(place, len(a), axis=0)
    found = np.where(a_length == 0, b_length, 0)
    for i in range(a.shape[1]):
        here = np.minimum(row[:, 1:] + 1, row[:, :-1] + (a[:, i, None] != b))
        here = np.concatenate([np.full((len(a), 1), i + 1), here], axis=1)
        # What is inserted from k on to j costs j - k, so the minimum over all k runs along the row.
        row = np.minimum.accumulate(here - place, axis=1) + place
        found = np.where(a_length == i + 1, row[np.arange(len(a)), b_length], found)
    return found


def padded(sequences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(n, longest) and lengths (n,)."""
    lengths = np.array([len(sequence) for sequence in sequences])
    tokens = np.zeros((len(sequences), lengths.max(initial=0)), np.int64)
    tokens[np.arange(tokens.shape[1])[None, :] < lengths[:, None]] = np.concatenate(sequences)
    return tokens, lengths


def bleu(answers: list[str], references: list[str], example: np.ndarray) -> float:
    """Corpus BLEU, 0 to 100, of answers each with those of the references that are of its example.

    Papineni et al. 2002, Post 2018.
    """
    mine: list[list[str]] = [[] for _ in answers]
    for text, number in zip(references, example, strict=True):
        mine[number].append(text)
    # The first reference of each, the second of each, …; None where an answer has fewer.
    return BLEU(force=True).corpus_score(answers, list(zip_longest(*mine))).score


def verdict(values: dict[str, float]) -> str:
    """How much of what was answered to contexts is wrong; empty where nothing was asked."""
    for split in ("valid", "test", "train"):
        wrong = [values.get(f"{split}/{of}_error_rate") for of in ("token", "sequence")]
        if None not in wrong:
            bleu = f", BLEU {values[f'{split}/bleu']:.1f}" if f"{split}/bleu" in values else ""
            return f"{wrong[0]:.1%} of tokens wrong, {wrong[1]:.1%} of sequences on {split}{bleu}".replace("%", " %")
    return ""
