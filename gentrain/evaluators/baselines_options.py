"""Options of the baselines."""

from dataclasses import dataclass

from gentrain.options.schema import option
from gentrain.options.sections import EvaluateSection


@dataclass(frozen=True)
class Options(EvaluateSection):
    shared = ()

    ngram_order: int = option(6, "the longest n-gram that is compared with; 0: none", within="[0, 20]", may_change=True)
