"""Losses from heads: the numbers of their definitions in float64, on any mesh, without the logits of all columns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gentrain import heads, losses, sharding
from gentrain.divergences import normalised_js_from_logits
from gentrain.heads import Head, head_divergence, head_scores
from launch import hlo

PRIORS = [0.0, 1e-6, 1e-3, 0.1, 0.5, 0.9, 1 - 1e-3, 1.0]
BATCH, LENGTH, VOCAB = 2, 5, 61


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Of 7 columns, which do not divide the vocabulary."""
    monkeypatch.setattr(heads, "PIECE", 1)
    monkeypatch.setattr(heads, "NARROWEST", 7)


def draw_layer(random, width, scale=1.0, bias=True, shape=(BATCH, LENGTH), vocab=VOCAB):
    """What is hidden and a head, float32; logits have about the scale."""
    hidden, kernel = random.normal(size=(*shape, width)), random.normal(size=(width, vocab)) * scale / width**0.5
    head = Head(kernel, random.normal(size=vocab) * scale if bias else None)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (hidden, head))


def log_law(hidden, head):
    """Log-probabilities in float64."""
    hidden, head = jax.tree.map(lambda x: np.asarray(x, np.float64), (hidden, head))
    logits = hidden @ head.kernel + (0 if head.bias is None else head.bias)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def derivative(log_p, log_q, pi):
    """That of the divergence in Q, as a free variable: log(Q/M) / pi, up to a constant."""
    if pi == 0:
        return -np.exp(log_p - log_q)
    log_rest = np.log1p(-pi) if pi < 1 else -np.inf
    return -np.logaddexp(np.log(pi) + log_p - log_q, log_rest) / pi


def pulled(of_logits, hidden, head):
    """Gradients in what is hidden and in the head, from those in logits."""
    hidden, head = jax.tree.map(lambda x: np.asarray(x, np.float64), (hidden, head))
    of_kernel = np.einsum("blw,blv->wv", hidden, of_logits)
    return of_logits @ head.kernel.T, Head(of_kernel, None if head.bias is None else of_logits.sum((0, 1)))


def assert_near(found, expected, tolerance=1e-6):
    """Each leaf, as a whole."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert np.linalg.norm(x - y) <= tolerance * np.linalg.norm(y), np.linalg.norm(x - y) / np.linalg.norm(y)


def value_and_gradient(teacher, student, prior, weights):
    def loss(student):
        nats = head_divergence(*teacher, *student, prior)
        return jnp.sum(weights * nats), nats

    (_, nats), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(student)
    return nats, gradient


@pytest.mark.parametrize("pi", PRIORS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_divergence_of_heads_and_its_gradient_are_those_of_their_laws(pi, bias):
    random = np.random.default_rng(round(100 * pi) + bias)
    teacher, student = draw_layer(random, 6, bias=bias), draw_layer(random, 4, bias=not bias)
    weights = jnp.asarray(random.normal(size=(BATCH, LENGTH)), jnp.float32)
    nats, gradient = value_and_gradient(teacher, student, pi, weights)
    log_p, log_q = log_law(*teacher), log_law(*student)
    q = np.exp(log_q)
    of_q = derivative(log_p, log_q, pi)
    of_logits = np.asarray(weights)[..., None] * q * (of_q - (q * of_q).sum(-1, keepdims=True))
    assert_near(nats, normalised_js_from_logits(log_p, log_q, pi))
    assert_near(gradient, pulled(of_logits, *student))


@pytest.mark.parametrize("pi", PRIORS)
def test_log_ratios_of_hundreds_are_no_trouble(pi):
    random = np.random.default_rng(0)
    teacher, student = draw_layer(random, 6, scale=150), draw_layer(random, 4, scale=150)
    log_p, log_q = log_law(*teacher), log_law(*student)
    assert np.abs(log_p - log_q).max() > 300
    nats, gradient = value_and_gradient(teacher, student, pi, 1.0)
    assert_near(nats, normalised_js_from_logits(log_p, log_q, pi), 1e-5)
    assert all(np.isfinite(x).all() and np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize(("near", "end"), [(1e-3, 0.0), (1e-6, 0.0), (1 - 1e-3, 1.0), (1 - 1e-6, 1.0)])
def test_near_an_end_the_dial_is_near_the_divergence_there(near, end):
    random = np.random.default_rng(1)
    teacher, student = draw_layer(random, 6, scale=0.6), draw_layer(random, 4, scale=0.6)
    assert 3 < np.abs(log_law(*teacher) - log_law(*student)).max() < 5
    tolerance = 20 * min(near, 1 - near) + 1e-6  # 2 % at 1e-3
    assert_near(
        value_and_gradient(teacher, student, near, 1.0), value_and_gradient(teacher, student, end, 1.0), tolerance
    )


def test_each_position_may_have_its_own_prior_and_only_the_student_has_a_gradient():
    random = np.random.default_rng(2)
    teacher, student = draw_layer(random, 6), draw_layer(random, 4)
    priors = jnp.asarray(random.uniform(size=(BATCH, LENGTH)), jnp.float32)
    expected = normalised_js_from_logits(log_law(*teacher), log_law(*student), np.asarray(priors, np.float64))
    assert_near(jax.jit(head_divergence)(*teacher, *student, priors), expected)
    loss = lambda *arguments: jnp.sum(head_divergence(*arguments))
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 4)))(*teacher, *student, priors)
    assert all(not np.any(x) for x in jax.tree.leaves(gradient))
    with pytest.raises(ValueError, match="the teacher has 61 symbols and the student 60"):
        head_divergence(*teacher, *draw_layer(random, 4, vocab=60), 0.5)
    with pytest.raises(ValueError, match="real_prior"):
        head_divergence(*teacher, *student, 1.5)


def test_a_symbol_that_a_bias_rules_out_has_no_mass():
    random = np.random.default_rng(3)
    (x, head), (y, other) = draw_layer(random, 6), draw_layer(random, 4)
    head, other = (h._replace(bias=h.bias.at[50:].set(-jnp.inf)) for h in (head, other))
    nats, gradient = value_and_gradient((x, head), (y, other), 0.3, 1.0)
    first = lambda h: Head(h.kernel[:, :50], h.bias[:50])
    expected, of_first = value_and_gradient((x, first(head)), (y, first(other)), 0.3, 1.0)
    assert_near((nats, gradient[0]), (expected, of_first[0]))
    assert not np.any(gradient[1].kernel[:, 50:])


def test_bfloat16_goes_in_and_sums_are_in_float32():
    random = np.random.default_rng(4)
    teacher, student = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (draw_layer(random, 6), draw_layer(random, 4)))
    nats, gradient = value_and_gradient(teacher, student, 0.3, 1.0)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), (teacher, student))
    expected, of_exact = value_and_gradient(*exact, 0.3, 1.0)
    assert nats.dtype == jnp.float32 and all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(gradient))
    assert_near(nats, expected)
    assert_near(gradient, of_exact, 1e-2)


@pytest.mark.parametrize("bias", [True, False])
def test_scores_and_their_gradients_are_those_of_the_logits(bias):
    random = np.random.default_rng(5)
    hidden, head = draw_layer(random, 4, scale=3, bias=bias)
    tokens = jnp.asarray(random.integers(0, VOCAB, (BATCH, LENGTH)), jnp.int32)
    weights = random.normal(size=(3, BATCH, LENGTH)).astype(np.float32)
    weighted = lambda scores: sum(jnp.sum(w * x) for w, x in zip(weights, scores, strict=True))
    gradient = jax.jit(jax.grad(lambda layer: weighted(head_scores(*layer, tokens))))((hidden, head))
    log_q = log_law(hidden, head)
    logits = np.asarray(hidden, np.float64) @ np.asarray(head.kernel, np.float64)
    logits += 0 if head.bias is None else np.asarray(head.bias, np.float64)
    chosen = np.eye(VOCAB)[tokens]
    expected = -(chosen * log_q).sum(-1), (logits - log_q)[..., 0], logits.mean(-1)
    assert_near(jax.jit(head_scores)(hidden, head, tokens), losses.Scores(*expected))
    of_nll, of_z, of_mean = (w[..., None] for w in weights)
    of_logits = (of_nll + of_z) * np.exp(log_q) - of_nll * chosen + of_mean / VOCAB
    assert_near(gradient, pulled(of_logits, hidden, head))


def losses_of(teacher, student, tokens, weights):
    """Both losses of a head, and the student's gradient of their weighted sum."""

    def loss(student):
        found = head_divergence(*teacher, *student, 0.3), head_scores(*student, tokens)
        return sum(jnp.sum(weights * x) for x in jax.tree.leaves(found)), found

    (_, found), gradient = jax.value_and_grad(loss, has_aux=True)(student)
    return found, gradient


@pytest.mark.usefixtures("no_mesh")
@pytest.mark.parametrize(
    ("devices", "sizes"),
    [
        (4, {"data": 2, "tensor": 2}),
        (4, {"tensor": 4}),
        (8, {"data": 2, "tensor": 4}),
        (8, {"fsdp": 2, "sequence": 2, "tensor": 2}),
        (8, {"replica": 2, "data": 4}),
    ],
)
def test_on_a_mesh_each_device_does_its_own_rows_and_columns(devices, sizes):
    random, shape, vocab = np.random.default_rng(6), (8, 6), 8 * 31
    draw = lambda width, bias: draw_layer(random, width, bias=bias, shape=shape, vocab=vocab)
    teacher, student = draw(6, True), draw(4, False)
    tokens = random.integers(0, vocab, shape).astype(np.int32)
    weights = random.normal(size=shape).astype(np.float32)
    with sharding.inside(sharding.one_device()):
        expected = jax.jit(losses_of)(teacher, student, tokens, weights)
    mesh = sharding.make_mesh({**dict.fromkeys(sharding.AXES, 1), **sizes}, 8, devices=jax.devices()[:devices])

    def put(tree, *axes):
        return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes[-x.ndim :]))), tree)

    def put_rows(tree):
        rows = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES, "sequence"))
        return jax.tree.map(lambda x: jax.device_put(x, rows), tree)

    layers = [(put_rows(hidden), put(head, "fsdp", "tensor")) for hidden, head in (teacher, student)]
    outputs = jax.tree.map(lambda x: x.sharding, (put_rows(expected[0]), layers[1]))
    arguments = *layers, *put_rows((tokens, weights))
    compiled = sharding.compile_on(mesh, losses_of, outputs).lower(*arguments).compile()
    assert_near(compiled(*arguments), expected)
    rows, unknown = hlo.traffic(compiled.as_text(), mesh.shape)
    assert not unknown
    # Along tensor a few numbers of each row are summed up, and what is hidden: no columns, and no logits.
    numbers = 4 * np.prod(shape) / (sharding.batch_parts(mesh) * mesh.shape["sequence"])
    assert sum(row.sent for row in rows if "tensor" in row.axes) <= 2 * numbers * (2 * 4 + 12)


def test_it_takes_an_eighth_of_the_memory_of_logits_at_most(monkeypatch):
    monkeypatch.undo()
    jax.config.update("jax_disable_most_optimizations", False)
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    teacher = shape(4, 256, 256), Head(shape(256, 50_000), shape(50_000))
    student = shape(4, 256, 128), Head(shape(128, 50_000), shape(50_000))

    def of_all_logits(x, head, y, other, prior):
        logits_p, logits_q = x @ head.kernel + head.bias[None, None], y @ other.kernel + other.bias[None, None]
        return normalised_js_from_logits(logits_p, logits_q, prior)

    def temporaries(divergence):
        step = jax.value_and_grad(lambda student, teacher: jnp.sum(divergence(*teacher, *student, 0.3)))
        return jax.jit(step).lower(student, teacher).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(head_divergence) <= temporaries(of_all_logits) / 8
