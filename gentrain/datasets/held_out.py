"""Which split an example is in, where the data do not say: the same on every machine and in every run."""

import hashlib
from collections.abc import Iterable

from ml_collections import ConfigDict


def missing_fractions(given: Iterable[str], data: ConfigDict) -> dict[str, float]:
    """How much of train to hold out for each of valid and test that is not among the given splits."""
    fractions = {"valid": data.valid_fraction, "test": data.test_fraction}
    return {split: fraction for split, fraction in fractions.items() if split not in given}


def split_by_text(document: str) -> str:
    """The split of a document by a hash of it: 90 in 100 train, 5 valid, 5 test."""
    number = int(hashlib.sha1(document.encode()).hexdigest(), 16) % 100
    return "train" if number < 90 else "valid" if number < 95 else "test"


def split_by_number(number: int, fractions: dict[str, float]) -> str:
    """The split of example `number` by a hash of that number, so that it stays when more examples are added."""
    draw = int(hashlib.sha1(str(number).encode()).hexdigest(), 16) % 1_000_000 / 1_000_000
    valid, test = fractions.get("valid", 0.0), fractions.get("test", 0.0)
    return "valid" if draw < valid else "test" if draw < valid + test else "train"
