import functools

import jax
import pytest

from gentrain import sharding


@pytest.fixture
def run_on_one_device(monkeypatch):
    """Runs of the training loop use one device: these programs are too small for eight."""
    one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", one)
