"""A run that cannot fit is refused with the numbers before any memory is taken, and one that can is not."""

import jax
import pytest

from gentrain import memory, program
from gentrain.errors import ConfigError


def test_a_model_that_fits_no_machine_is_refused_by_its_shapes_alone(config, spec):
    config.model.width = 10**8
    with pytest.raises(ConfigError, match=r"optimiser state .* parameters .* --allow=memory"):
        memory.check(config, program.build(config, spec))
    config.model.width = 16
    memory.check(config, program.build(config, spec))


def test_activations_count_where_the_state_alone_would_fit(config, spec, monkeypatch):
    built = program.build(config, spec)
    sizes = memory.estimate(config, built)
    state, needed = sum(memory.state_bytes(config, built).values()), sum(sizes.values())
    assert state < needed
    for available, fits in ((needed, True), (needed - 1, False), (state, False)):
        monkeypatch.setattr(memory, "device_bytes", lambda available=available: available)
        if fits:
            memory.check(config, built)
        else:
            with pytest.raises(ConfigError, match="kept for the backward pass"):
                memory.check(config, built)
            with pytest.warns(UserWarning, match="going on, as --allow=memory"):
                memory.check(config, built, ("memory",))


def test_the_rough_estimate_is_no_less_than_the_careful_one(config, spec):
    for family in ("lstm", "transformer", "gpt2"):
        for config.model.layers in (1, 4):
            config.model.name = family
            built = program.build(config, spec)
            careful = memory.estimate(config, built)["kept for the backward pass"]
            assert memory.rough_activations(config, built) > memory.SAFE * careful


def test_batches_that_no_host_holds_are_refused_before_the_data_are_read(config):
    memory.check_rows(config)
    config.data.batch_size = 10**8
    with pytest.raises(ConfigError, match="100,000,000 rows"):
        memory.check_rows(config)


def test_a_device_of_a_cpu_has_its_share_of_the_host(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP", limit)
    whole = memory.host_bytes()
    limit.write_text("max\n")
    assert memory.host_bytes() == whole
    limit.write_text("8000000\n")
    assert memory.host_bytes() == 8_000_000 and memory.device_bytes() == 8_000_000 // len(jax.local_devices())
