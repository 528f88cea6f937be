"""What is held out of data whose splits are not all given."""

from collections.abc import Iterable

from ml_collections import ConfigDict


def missing_fractions(given: Iterable[str], data: ConfigDict) -> dict[str, float]:
    """How much of train to hold out for each split that is not given."""
    fractions = {"valid": data.valid_fraction, "test": data.test_fraction}
    return {split: fraction for split, fraction in fractions.items() if split not in given}
