"""A copy of a family under another name is as good a model as the first: nobody knows families by their names."""

import subprocess
import sys

from tests.helpers import ROOT, environment

TRACE = """
import jax
from configs import base
from gentrain import program, sharding
from gentrain.datasets import build
from gentrain.errors import ConfigError
from gentrain.options import check

GRU = {"model.name": "gru", "data.length": 6, "model.width": 8, "data.batch_size": 8}
CRITIC = {"objective.name": "adversarial", "critic.name": "gru", "critic.width": 8}
for changes in (
    {"model.gru.tie_embeddings": True},
    {"objective.name": "scheduled_sampling", "scheduled_sampling.feed": "soft_argmax"},
    {**CRITIC, "adversarial.entropy_weight": 0.1, "adversarial.known_density": True},
    {**CRITIC, "adversarial.estimator": "gumbel_softmax"},
    {"objective.name": "cooperative", "mediator.name": "gru", "mediator.width": 8},
):
    config = base.get_config()
    config.update_from_flattened_dict(GRU | changes)
    check.validate(config)
    built = program.build(config, build.build(config, None).spec, sharding.one_device())
    jax.eval_shape(built.update, built.state, built.batch)
for refused in ({"adversarial.r1": 0.1}, {"adversarial.generator_loss": "hinge"}):
    config = base.get_config()
    config.update_from_flattened_dict(GRU | CRITIC | refused)
    try:
        check.validate(config)
    except ConfigError:
        continue
    raise AssertionError(refused)
"""


def test_a_copied_lstm_can_do_what_the_lstm_can(tmp_path):
    (tmp_path / "models").mkdir()
    for name in ("lstm.py", "lstm_options.py"):
        code = (ROOT / "gentrain/models" / name).read_text().replace("lstm_options", "gru_options")
        (tmp_path / "models" / name.replace("lstm", "gru")).write_text(code)
    command = [sys.executable, "-c", TRACE]
    run = {"cwd": ROOT, "env": environment(GENTRAIN_PLUGINS=str(tmp_path)), "capture_output": True, "text": True}
    done = subprocess.run(command, timeout=120, **run)
    assert done.returncode == 0, done.stderr
