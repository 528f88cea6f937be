"""What the processes of one run agree on, and how they notice that one is gone."""

import json

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from gentrain.errors import ConfigError
from gentrain.runtime import peers


def test_processes_decide_as_one(monkeypatch):
    assert peers.agree(False) is False and peers.agree(True) is True  # one process asks nobody
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda flag: np.asarray(True))
    assert peers.agree(False) is True


def test_processes_that_found_something_else_are_named(monkeypatch):
    def gathered(digests):
        other = digests.copy()
        other[1] += 1
        return np.stack([digests, digests, other])

    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    with pytest.raises(ConfigError, match=r"process 0: config of process 2; start"):
        peers.same_everywhere({"code": "a", "config": "b"})
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda digests: np.stack([digests] * 3))
    peers.same_everywhere({"code": "a", "config": "b"})


def test_a_run_is_known_by_its_code_packages_and_config():
    digests = peers.run_digests({"steps": 1, "seed": 0})
    assert digests.keys() == {"code", "packages", "config"}
    assert peers.run_digests({"seed": 0, "steps": 1}) == digests  # in any order
    other = peers.run_digests({"steps": 2, "seed": 0})
    assert other["code"] == digests["code"] and other["config"] != digests["config"]
    assert json.dumps(digests)


def test_an_error_of_ones_own_is_no_lost_peer():
    lost = jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    assert peers.lost_peer(lost).exit_code == 42
    assert peers.lost_peer(ValueError("UNKNOWN: Gloo all-reduce failed: closed by peer")).exit_code == 42
    try:
        raise ConfigError("not saved") from jax.errors.JaxRuntimeError("INTERNAL: x: UNAVAILABLE: Task 1")
    except ConfigError as wrapped:
        assert peers.lost_peer(wrapped).exit_code == 42
    assert peers.lost_peer(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")) is None
    assert peers.lost_peer(ValueError("Gloo")) is None
    assert peers.lost_peer(None) is None
