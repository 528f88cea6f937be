"""Eight simulated devices, strict broadcasting and checked shapes, for all tests."""

import atexit
import functools
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# One compilation cache for the session: the same small programs are compiled again and again, in child processes too.
for name in {"JAX_COMPILATION_CACHE_DIR", "GENTRAIN_CACHE"} - os.environ.keys():
    os.environ[name] = tempfile.mkdtemp(prefix="gentrain-tests-")
    atexit.register(shutil.rmtree, os.environ[name], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # the tests spend their time compiling, not computing

import jax  # noqa: E402, after the environment
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook(["gentrain.losses", "gentrain.heads", "gentrain.decode", "gentrain.models"], "beartype.beartype")

from configs import base  # noqa: E402, after the hook
from gentrain import sharding  # noqa: E402
from gentrain.datasets.spec import TextSpec  # noqa: E402


@pytest.fixture(autouse=True)
def same_compiler():
    """What a test changes of the compiler is changed for that test alone."""
    yield
    jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1")
    jax.config.update("jax_enable_compilation_cache", True)


@pytest.fixture(autouse=True)
def one_device():
    """A model that a test calls by itself runs on one device; programs and evaluators bring their own mesh."""
    with sharding.inside(sharding.one_device()):
        yield


@pytest.fixture
def no_mesh():
    """As in a run, where only the program's own mesh is there: shard_map goes into no mesh of another size."""
    with jax.sharding.use_abstract_mesh(sharding.NO_MESH):
        yield


@pytest.fixture
def run_on_one_device(monkeypatch):
    """Runs of the training loop use one device: these programs are too small for eight."""
    monkeypatch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))


@pytest.fixture
def config():
    """Small enough to compile in a second."""
    config = base.get_config()
    config.steps = 20
    config.model.width = 16
    config.model.transformer.heads, config.model.transformer.kv_heads = 4, 2
    config.data.batch_size, config.data.length = 16, 12
    config.optimizer.learning_rate = 1e-2
    return config


@pytest.fixture
def spec():
    return TextSpec(vocab=7, length=12, end=6)
