"""How often answers to held-out contexts are wrong: the phonemes of a spelling, the caption of a picture."""

from itertools import zip_longest

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from sacrebleu.metrics import BLEU

from gentrain import decode, sharding
from gentrain.datasets.build import Data
from gentrain.datasets.spec import TextSpec
from gentrain.errors import ConfigError
from gentrain.evaluators.base import Evaluator
from gentrain.models.base import SequenceModel
from gentrain.objectives.base import Objective
from gentrain.sums import Metric, Sum, mean

METRICS = {
    "<split>/token_error_rate": Metric("share", "lower", "insertions, deletions and substitutions by tokens"),
    "<split>/sequence_error_rate": Metric("share", "lower", "answers that are not exactly right"),
    "<split>/bleu": Metric("0 to 100", "higher", "corpus BLEU of the answers, sacrebleu's 13a tokens"),
}


def build(config: ConfigDict, objective: Objective, data: Data, mesh: Mesh) -> Evaluator:
    """The likeliest answer that a beam of evaluate.transcription.beam finds for each context of a split, against what
    the data say, named `<split>/…` (see METRICS). The end of a document is not counted as a token; bleu is of text.

    Rows of the same context are one example with several references: bleu takes all of them, the rates the closest.
    With evaluate.batches, an estimate from that many batches. Raises ConfigError for data without contexts or ends.
    """
    spec, name, size, model = data.spec, config.evaluate.split, config.data.batch_size, objective.model
    needs = f"evaluator 'transcription' compares answers to contexts, and {config.data.name} "
    if not spec.context_vocab:
        raise ConfigError(f"{needs}gives none: set data.conditional, or take it out of evaluate.evaluators")
    if spec.end is None:
        raise ConfigError(f"{needs}has answers that never end: take it out of evaluate.evaluators")
    assert isinstance(model, SequenceModel)
    split, beam = data.split(name), config.evaluate.transcription.beam
    batches = min(config.evaluate.batches or split.batches, split.batches)

    def answer_batch(params, batch):
        likely = decode.beam_search(model, params, batch["context"], spec.length, beam, end=spec.end)
        return batch["context"], likely.tokens, likely.mask, batch["tokens"], batch["mask"]

    # Its results are on every device: each process groups all rows and counts the same.
    answer = sharding.compile_on(mesh, answer_batch)

    def evaluate(params, key):
        put = (sharding.put(split.batch(number), mesh, size) for number in range(batches))
        parts = [jax.device_get(answer(params["generator"], batch)) for batch in put]
        contexts, answered, answer_mask, tokens, mask = (np.concatenate(field) for field in zip(*parts, strict=True))
        real = mask.any(-1)  # not the filler of the last batch
        answers = rows_of(answered[real], (answer_mask & (answered != spec.end))[real])
        references = rows_of(tokens[real], (mask & (tokens != spec.end))[real])
        example = number_contexts(contexts[real])
        answers = [answers[row] for row in np.unique(example, return_index=True)[1]]
        values = error_rates(answers, references, example)
        if isinstance(spec, TextSpec):
            texts = [spec.decode(tokens) for tokens in references]
            values["bleu"] = bleu([spec.decode(tokens) for tokens in answers], texts, example)
        return {f"{name}/{label}": value for label, value in values.items()}

    return evaluate


def rows_of(tokens: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    """What the mask keeps of each row."""
    return [row[keep] for row, keep in zip(tokens, mask, strict=True)]


def number_contexts(contexts: np.ndarray) -> np.ndarray:
    """The number of each row's context (n,), in the order in which they first occur; equal ones have one number."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in contexts])


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
    a, a_lengths = pad(ones)
    b, b_lengths = pad(others)
    column = np.arange(b.shape[1] + 1)[None, :]
    row = np.repeat(column, len(a), axis=0)
    distance = np.where(a_lengths == 0, b_lengths, 0)
    for i in range(a.shape[1]):
        here = np.minimum(row[:, 1:] + 1, row[:, :-1] + (a[:, i, None] != b))
        here = np.concatenate([np.full((len(a), 1), i + 1), here], axis=1)
        # What is inserted from k on to j costs j - k, so the minimum over all k runs along the row.
        row = np.minimum.accumulate(here - column, axis=1) + column
        distance = np.where(a_lengths == i + 1, row[np.arange(len(a)), b_lengths], distance)
    return distance


def pad(sequences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (n, longest), and their lengths (n,)."""
    lengths = np.array([len(sequence) for sequence in sequences])
    tokens = np.zeros((len(sequences), lengths.max(initial=0)), np.int64)
    tokens[np.arange(tokens.shape[1])[None, :] < lengths[:, None]] = np.concatenate(sequences)
    return tokens, lengths


def bleu(answers: list[str], references: list[str], example: np.ndarray) -> float:
    """Corpus BLEU, 0 to 100, of answers each with those of the references that are of its example.

    Papineni et al. 2002, Post 2018.
    """
    by_answer: list[list[str]] = [[] for _ in answers]
    for text, number in zip(references, example, strict=True):
        by_answer[number].append(text)
    # The first reference of each, the second of each, …; None where an answer has fewer.
    return BLEU(force=True).corpus_score(answers, list(zip_longest(*by_answer))).score


def verdict(values: dict[str, float]) -> str:
    """How much of the answers to contexts is wrong, in words; empty where there were none."""
    for split in ("valid", "test", "train"):
        tokens, sequences = (values.get(f"{split}/{unit}_error_rate") for unit in ("token", "sequence"))
        if tokens is not None and sequences is not None:
            score = f", BLEU {values[f'{split}/bleu']:.1f}" if f"{split}/bleu" in values else ""
            return f"{tokens:.1%} of tokens wrong, {sequences:.1%} of sequences on {split}{score}".replace("%", " %")
    return ""
