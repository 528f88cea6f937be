"""How an option is declared: one dataclass field with its default, its meaning, its allowed values and who reads it."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ml_collections import ConfigDict, FieldReference

from gentrain.errors import ConfigError

if TYPE_CHECKING:
    from gentrain.options.tree import Run

LARGEST = 2**31 - 1  # counters and seeds are 32-bit integers


def option(
    default: Any,
    doc: str,
    *,
    choices: tuple[str, ...] = (),
    within: str = "",
    when: Mapping[str, tuple[Any, ...]] | None = None,
    may_change: bool = False,
) -> Any:
    """A field of an Options class.

    doc: unit and consequence, for `launch.list keys`.
    choices: the allowed strings.
    within: an interval of allowed numbers, as "[0, 1)" or "(0, inf)"; an empty string allows every number from 0 on.
    when: sibling option -> the values with which this option is read; without it the option is read always.
    may_change: a run may go on with another value, because the value says how and not what.
    """
    if isinstance(default, list | dict | set):
        raise TypeError(f"an option's default is immutable, not {default!r}")
    metadata = {"doc": doc, "choices": choices, "within": within, "when": dict(when or {}), "may_change": may_change}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Options:
    """Typed options of one section or plug-in; a subclass declares its fields with `option`.

    shared: which of its section's common options a plug-in reads besides those the section always reads; None: all.
    """

    shared: ClassVar[tuple[str, ...] | None] = None

    @classmethod
    def own_fields(cls) -> list[dataclasses.Field]:
        """The fields that stand in a plug-in's sub-section: those that the section itself does not declare."""
        return [field for field in dataclasses.fields(cls) if field.name not in cls.section_fields()]

    @classmethod
    def section_fields(cls) -> set[str]:
        """Names of the fields that the plug-in inherits from its section's class (see `Section`)."""
        section = next((base for base in cls.__mro__[1:] if "is_section" in base.__dict__), None)
        return {field.name for field in dataclasses.fields(section)} if section else set()

    @classmethod
    def read(cls, section: ConfigDict, inner: ConfigDict | None = None) -> Self:
        """The options of a config's section, typed; those of a plug-in from `inner`, its sub-section."""
        inner = section if inner is None else inner
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: inner[name] if name in inner else section[name] for name in names})

    def check(self, run: "Run", where: str) -> None:
        """Raises ConfigError for values that exclude one another; `where` is the section's full name."""


def expect(holds: bool, key: str, value: Any, expected: str) -> None:
    """Raises ConfigError naming the key, what it is and what it may be, unless the condition holds."""
    if not holds:
        raise ConfigError(f"{key}={value!r}: expected {expected}")


def defaults(cls: type[Options], fields: list[dataclasses.Field] | None = None) -> ConfigDict:
    """The section of a config that the class declares, with its defaults."""
    fields = list(dataclasses.fields(cls)) if fields is None else fields
    section = ConfigDict()
    for field in fields:
        any_type = field.type in (Any, "Any")  # a text or a tuple, for instance
        section[field.name] = FieldReference(field.default, object) if any_type else field.default
    return section


def check_value(field: dataclasses.Field, key: str, value: Any) -> None:
    """Raises ConfigError for a value that the field's declaration rules out."""
    if choices := field.metadata["choices"]:
        expect(value in choices, key, value, "one of " + ", ".join(choices) + hint(value, choices))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    expect(math.isfinite(value), key, value, "a finite number")
    expect(isinstance(value, float) or abs(value) <= LARGEST, key, value, f"at most {LARGEST} in size")
    holds, expected = interval(field.metadata["within"] or "[0, inf)")
    expect(holds(value), key, value, expected)


def hint(value: Any, choices: tuple[str, ...]) -> str:
    """'; did you mean adam?' where a choice differs in case only."""
    same = [choice for choice in choices if choice.lower() == str(value).lower()]
    return f"; did you mean {same[0]!r}?" if same else ""


def interval(text: str) -> tuple[Callable[[float], bool], str]:
    """'[0, 1)' -> whether a number lies in it, and the interval in words."""
    low, high = (float(end) for end in text[1:-1].split(","))
    closed = text[0] == "[", text[-1] == "]"

    def holds(value: float) -> bool:
        above = value >= low if closed[0] else value > low
        below = value <= high if closed[1] else value < high
        return above and below

    words = []
    if low > -math.inf:
        words.append(f"{low:g} or more" if closed[0] else f"a number above {low:g}")
    if high < math.inf:
        words.append(f"at most {high:g}" if closed[1] else f"below {high:g}")
    return holds, " and ".join(words) or "a number"
