"""What compiled evaluators send between devices: parts of parameters to the rows, and not rows to the parameters."""

import jax
import jax.numpy as jnp
import pytest

from gentrain import program, sharding
from gentrain.datasets.build import Data
from gentrain.evaluators import likelihood
from launch import hlo
from tests.evaluators.test_generators import fake_data

pytestmark = pytest.mark.usefixtures("no_mesh")  # as in a run: whoever compiles has to bring the mesh


@pytest.fixture
def config(config):
    """Parameters in eight parts."""
    config.model.name, config.model.width, config.mesh.data, config.mesh.fsdp = "transformer", 64, 1, 8
    return config


def compiled_likelihood(config, built: program.Program, data: Data, monkeypatch):
    """The program that the evaluator runs on each batch."""
    programs, compile_on = [], sharding.compile_on
    with monkeypatch.context() as patch:
        patch.setattr(sharding, "compile_on", lambda *given: programs.append(compile_on(*given)) or programs[-1])
        likelihood.build(config, built.objective, data, built.mesh)
    (only,) = programs
    return only


def bytes_sent(compiled, built: program.Program) -> int:
    """By one device in one call, with the parameters and the rows where a run has them."""
    executable = compiled.lower(built.state.params["generator"], built.batch).compile()
    rows, unknown = hlo.traffic(executable.as_text(), built.mesh.shape)
    assert not unknown
    return sum(row.sent for row in rows)


def test_an_evaluator_sends_no_more_than_the_forward_pass_of_training(config, spec, monkeypatch):
    sent = []
    for config.data.batch_size in (16, 64):
        built = program.build(config, spec)
        key, step = jax.random.key(0), jnp.zeros((), jnp.int32)

        def loss(params, batch, objective=built.objective, key=key, step=step):
            return objective.loss("generator", {"generator": params}, {}, batch, key, step)[0]

        evaluator = compiled_likelihood(config, built, fake_data(spec, config.data.batch_size), monkeypatch)
        sent.append(bytes_sent(evaluator, built))
        assert sent[-1] <= bytes_sent(sharding.compile_on(built.mesh, loss), built)
    assert 0 < sent[1] <= 1.01 * sent[0]  # four times the rows
    assert sent[1] <= 4 * sharding.elements(built.state.params)  # each parameter once at most, float32


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_a_model_that_is_traced_outside_a_mesh_is_an_error(config, spec, name):
    config.model.name = name
    built = program.build(config, spec)
    params, batch = built.state.params["generator"], built.batch
    with pytest.raises(RuntimeError, match="outside a mesh"):
        jax.eval_shape(built.objective.model.batch_nll, params, batch)
    with sharding.inside(built.mesh):
        assert jax.eval_shape(built.objective.model.batch_nll, params, batch)[0].shape == batch["tokens"].shape
