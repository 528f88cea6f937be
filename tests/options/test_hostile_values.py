"""Numbers that no run can mean are refused at once, and what is accepted is well defined."""

import math
import resource

import pytest
from ml_collections import ConfigDict

from configs import base
from gentrain import train
from gentrain.errors import ConfigError
from gentrain.options.check import validate
from gentrain.runtime.signals import Stop

FLOATS = (math.nan, math.inf, -math.inf, -1.0, -1e30, 1e30)
WHOLE = (-1, -(2**31), 2**31, 2**63, 10**30)
# Accepted, for they say what they mean: rates and periods may be huge, seeds are any number, -1 is all devices.
MEANT = {"seed": -1, "mesh.data": -1}
READ_BY = {"captions": "captions:digits", "world": "world:table", "text": "text:x", "tfds": "tfds:x"}


def numbers(section: ConfigDict, path: str = ""):
    """(full name, value) of every option that is a number."""
    for name, value in section.items():
        if isinstance(value, ConfigDict):
            yield from numbers(value, f"{path}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path + name, value


def with_value(path: str, value: float) -> ConfigDict:
    """A config that selects what reads an option, and sets it."""
    config = base.get_config()
    first, *inner = path.split(".")[:-1] or [""]
    if first in ("adversarial", "cooperative", "scheduled_sampling", "divergence"):
        config.objective.name = first
    elif first in ("critic", "mediator"):
        config.objective.name = {"critic": "adversarial", "mediator": "cooperative"}[first]
    if first in ("model", "critic", "mediator") and inner:
        config[first].name = inner[0]
    if first == "data" and inner:
        config.data.name = READ_BY[inner[0]]
    config.update_from_flattened_dict({path: value})
    return config


def test_every_number_refuses_what_it_cannot_mean():
    accepted, tried = [], 0
    for path, value in numbers(base.get_config()):
        for hostile in FLOATS if isinstance(value, float) else WHOLE:
            tried += 1
            try:
                validate(with_value(path, hostile))
            except ConfigError as error:
                assert path.split(".")[0] in str(error) and "\n" not in str(error)
            else:
                accepted.append((path, hostile))
    assert tried > 500
    assert [(path, value) for path, value in accepted if value != 1e30 and MEANT.get(path) != value] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.width", 10**9), ("model.width", 2**31 - 1), ("data.batch_size", 10**9), ("data.batch_size", 2**31 - 8),
        ("data.length", 10**9), ("data.length", 2**31 - 1),
    ],
)  # fmt: skip
def test_sizes_that_no_machine_has_are_refused_before_they_are_taken(tmp_path, path, value):
    config = base.get_config()
    config.update_from_flattened_dict({path: value})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match=r"GB"):
        train.train(config, tmp_path / "run", Stop(False))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1e6  # kilobytes
