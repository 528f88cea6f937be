"""Published models come in whole or not at all, and go out as they came in."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.special
from safetensors.numpy import load_file, save_file

import gentrain
from configs import base
from gentrain import plugins, pretrained, sharding
from gentrain.datasets import fetch
from gentrain.datasets.spec import TextSpec
from gentrain.errors import CheckpointError, ConfigError
from gentrain.options.fit import fit
from gentrain.options.tree import plugin_options
from gentrain.published.writing import write_folder
from launch import export
from tests.published.helpers import HEADS, KINDS, KV_HEADS, LAYERS, ROWS, WIDTH, change, make_folder, tensors

kinds = pytest.mark.parametrize("kind", KINDS)


def fitted(folder):
    config = base.get_config()
    config.init_from = f"hf:{folder}"
    fit(config)
    return config


def restored(folder, mesh=None, rules=(), dtype="float32"):
    """-> (the model, its parameters on the mesh)."""
    config, mesh = fitted(folder), mesh or sharding.one_device()
    config.model.param_dtype = dtype
    published = fetch.published(f"hf:{folder}")
    rows = published.tensors["model.embed_tokens.weight"].shape[0]
    model = plugins.load("models", config.model.name).build(config.model, TextSpec(rows, 16, 1))
    with sharding.inside(mesh):
        shapes = sharding.shard(jax.eval_shape(model.init, jax.random.key(0)), mesh, rules)
    return model, pretrained.restore(published, config.model, shapes)


def forward(config, held, tokens):
    """Logits (length, rows) of one sequence, in plain NumPy, as the families' papers and configs say."""
    size = config.get("head_dim", WIDTH // HEADS)
    wave = config["rope_theta"] ** (-np.arange(0, size, 2) / size)
    if scaling := config.get("rope_scaling"):
        length = scaling["original_max_position_embeddings"]
        ratio, low, high = length * wave / (2 * np.pi), scaling["low_freq_factor"], scaling["high_freq_factor"]
        smooth = (ratio - low) / (high - low)
        between = (1 - smooth) * wave / scaling["factor"] + smooth * wave
        wave = np.where(ratio < low, wave / scaling["factor"], np.where(ratio > high, wave, between))
    angle = np.arange(len(tokens))[:, None] * wave[None, :]

    def norm(name, x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"]) * held[name]

    def turned(x):
        a, b = x[..., : size // 2], x[..., size // 2 :]
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    x = held["model.embed_tokens.weight"][tokens].astype(np.float64)
    for layer in range(LAYERS):
        start = f"model.layers.{layer}."
        y, parts = norm(f"{start}input_layernorm.weight", x), {}
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            projected = y @ held[f"{start}self_attn.{name}_proj.weight"].T
            projected = projected + held.get(f"{start}self_attn.{name}_proj.bias", 0.0)
            projected = projected.reshape(len(tokens), heads, size)
            if f"{start}self_attn.{name}_norm.weight" in held:
                projected = norm(f"{start}self_attn.{name}_norm.weight", projected)
            projected = projected if name == "v" else turned(projected)
            parts[name] = np.repeat(projected, HEADS // heads, axis=1)
        scores = np.einsum("qhs,khs->hqk", parts["q"], parts["k"]) / np.sqrt(size)
        scores = np.where(np.tri(len(tokens))[None] > 0, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khs->qhs", weights / weights.sum(-1, keepdims=True), parts["v"])
        x = x + mixed.reshape(len(tokens), -1) @ held[f"{start}self_attn.o_proj.weight"].T
        y = norm(f"{start}post_attention_layernorm.weight", x)
        gate, up = (y @ held[f"{start}mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ held[f"{start}mlp.down_proj.weight"].T
    table = held.get("lm_head.weight", held["model.embed_tokens.weight"])
    return norm("model.norm.weight", x) @ table.T


@kinds
def test_logits_are_those_of_the_family(kind, tmp_path):
    model, params = restored(make_folder(tmp_path / "in", kind))
    tokens = np.random.default_rng(1).integers(2, ROWS, (2, 90)).astype(np.int32)
    logits = model.apply(params, jnp.asarray(tokens))
    for row, expected in zip(tokens, np.asarray(logits), strict=True):
        np.testing.assert_allclose(expected, forward(KINDS[kind], tensors(KINDS[kind]), row), rtol=1e-4, atol=1e-4)


@kinds
def test_what_comes_in_goes_out_bit_for_bit(kind, tmp_path):
    folder = make_folder(tmp_path / "in", kind)
    config, (_, params) = fitted(folder), restored(folder)
    family = plugins.companion("models", config.model.name, "published")
    options, params = family.to_publish(plugin_options("models", config.model.name).of(config.model), params, 0)
    write_folder(tmp_path / "out", family.config_of(options), export.tensors(family.leaves(options), params, 0))
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("in", "out"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert family.options_of(said, False) == family.options_of(KINDS[kind], False) | {
        "transformer.head_size": said["head_dim"]
    }


def test_a_begin_that_was_trained_goes_out_too_and_leaves_the_logits_as_they_were(tmp_path):
    """A tied table whose row of the begin token is no longer what begins a sequence is written as two."""
    folder = make_folder(tmp_path / "in", adds_begin=True)
    model, params = restored(folder)
    params = params | {"bos": params["bos"] + 1}
    config = fitted(folder)
    family = plugins.companion("models", "transformer", "published")
    options, changed = family.to_publish(plugin_options("models", "transformer").of(config.model), params, 0)
    out = tmp_path / "out"
    write_folder(
        out, family.config_of(options) | {"vocab_size": ROWS}, export.tensors(family.leaves(options), changed, 0)
    )
    (out / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (out / "tokenizer_config.json").write_bytes((folder / "tokenizer_config.json").read_bytes())
    again, theirs = restored(out)
    inputs = jnp.asarray([[ROWS, 5, 6, 7, 300]], jnp.int32)
    np.testing.assert_allclose(model.apply(params, inputs), again.apply(theirs, inputs), rtol=1e-6, atol=1e-6)
    assert "lm_head.weight" in load_file(out / "model.safetensors")


def test_several_files_and_other_types_are_read_as_one(tmp_path):
    folder = make_folder(tmp_path / "in")
    held = load_file(folder / "model.safetensors")
    names, half = sorted(held), ml_dtypes.bfloat16
    (folder / "model.safetensors").unlink()
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, chosen in parts.items():
        save_file({name: held[name].astype(half) for name in chosen}, folder / file)
    places = {name: file for file, chosen in parts.items() for name in chosen}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    for dtype in ("float32", "bfloat16"):
        params = restored(folder, dtype=dtype)[1]
        assert params["embed"].dtype == dtype
        expected = held["model.embed_tokens.weight"].astype(half).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(params["embed"], np.float32), expected)


@pytest.mark.parametrize(
    "axes", [{"fsdp": 8}, {"fsdp": 2, "tensor": 4}, {"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=str
)
def test_shards_hold_what_one_device_holds(axes, tmp_path):
    folder, config = make_folder(tmp_path / "in", "qwen2"), base.get_config().mesh
    config.update(data=1, **{name: size for name, size in axes.items() if name != "data"})
    config.data = axes.get("data", 1)
    mesh = sharding.make_mesh(config, 8)
    rules = base.TRANSFORMER_RULES if "tensor" in axes else ()
    _, whole = restored(folder)
    _, split = restored(folder, mesh, rules)
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(split)) == (
        next(iter(axes)) != "data" or len(axes) > 1
    )
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one, other), whole, split)


def test_every_device_reads_its_own_part_alone(tmp_path, monkeypatch):
    folder, config = make_folder(tmp_path / "in"), base.get_config().mesh
    config.update(data=1, fsdp=8)
    read: list = []
    opened = fetch.published

    def counting(name):
        published = opened(name)
        count = lambda stored: stored._replace(read=lambda index: (read.append(index), stored.read(index))[1])
        return published._replace(tensors={name: count(stored) for name, stored in published.tensors.items()})

    monkeypatch.setattr(fetch, "published", counting)
    restored(folder, sharding.make_mesh(config, 8))
    rows = [
        index[0]
        for index in read
        if len(index) == 2 and index[1].stop == WIDTH and index[0].stop - index[0].start == ROWS // 8
    ]
    assert len(rows) == 8 and {row.start for row in rows} == set(range(0, ROWS, ROWS // 8))


FAULTS = [
    ("missing", {"model__norm__weight": None}, "has no tensor model.norm.weight"),
    (
        "extra",
        {"model__layers__3__mlp__up_proj__weight": np.zeros((48, 32), np.float32)},
        "has a tensor model.layers.3",
    ),
    ("shape", {"model__norm__weight": np.ones(31, np.float32)}, r"model.norm.weight is \(31,\), and \(32,\)"),
    ("type", {"model__norm__weight": np.ones(32, np.int8)}, "model.norm.weight is of type I8"),
]


@pytest.mark.parametrize(("change_of", "text"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_tensors_that_do_not_fit_are_named(change_of, text, tmp_path):
    folder = make_folder(tmp_path / "in")
    change(folder, **change_of)
    with pytest.raises(CheckpointError, match=text):
        restored(folder)


def test_buffers_and_the_copy_of_a_tied_table_are_not_needed(tmp_path):
    folder = make_folder(tmp_path / "in")
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change(folder, lm_head__weight=table, model__layers__0__self_attn__rotary_emb__inv_freq=np.ones(4, np.float32))
    restored(folder)


def test_what_is_no_model_or_none_of_ours_is_named(tmp_path):
    for said, text in (
        ({"model_type": "mamba"}, "of the family 'mamba': expected one of .*llama"),
        ({"model_type": "mistral", "sliding_window": 16}, "sliding window of 16"),
        ({"hidden_act": "gelu"}, "its hidden_act is 'gelu': expected 'silu'"),
        ({"attention_bias": True}, "its attention has biases"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "scaled as 'yarn'"),
    ):
        with pytest.raises(ConfigError, match=text):
            fitted(make_folder(tmp_path / str(len(os.listdir(tmp_path))), **said))
    folder = make_folder(tmp_path / "in")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "num_attention_heads": 4}))
    with pytest.raises(ConfigError, match=r"does not say 'hidden_size'"):
        fitted(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json is no JSON"):
        fitted(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"it has no config.json"):
        fitted(folder)
    with pytest.raises(ConfigError, match="there is no folder"):
        fetch.published(f"hf:{tmp_path / 'nowhere'}")


def test_pickles_are_never_opened_and_damage_is_named(tmp_path):
    folder = make_folder(tmp_path / "in")
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[:100], whole[:-5], b"", b"\xff" * 64):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"model.safetensors is damaged"):
            restored(folder)
    file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 3'\ntR.")
    with pytest.raises(CheckpointError, match=r"no safetensors but pytorch_model.bin, which can run code"):
        restored(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(CheckpointError, match="does not name files of the folder"):
        restored(folder)
    os.mkfifo(file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file.name}}))
    with pytest.raises(CheckpointError, match="not there"):
        restored(folder)


@pytest.mark.slow
def test_beside_the_shards_one_tensor_at_a_time_is_in_memory(tmp_path):
    """A process reaches less than 1.3 of the largest tensor above what it held before and the parameters themselves."""
    code = """
import sys, threading, time, jax
from tests.published.test_folders import restored

def memory():  # what is not merely a mapped file
    status = open("/proc/self/status").read()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])

seen, done = [], threading.Event()
def watch():
    while not done.is_set():
        seen.append(memory())
        time.sleep(0.001)

restored(sys.argv[1])
before = memory()
threading.Thread(target=watch, daemon=True).start()
_, params = restored(sys.argv[2])
done.set()
held = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
largest = max(params["embed"].nbytes, params["layers"]["up"]["kernel"][0].nbytes)
print((max(seen) - before - held) / largest)
"""
    small = make_folder(tmp_path / "small")
    width, rows = 1024, 65536
    config = KINDS["llama"] | {
        "hidden_size": width,
        "vocab_size": rows,
        "intermediate_size": 4096,
        "num_hidden_layers": 3,
    }
    random = np.random.default_rng(0)
    shapes = {name: one.shape for name, one in tensors(KINDS["llama"]).items() if "layers" not in name or ".0." in name}
    large = tmp_path / "large"
    make_folder(large)
    (large / "config.json").write_text(json.dumps(config))
    sizes = {WIDTH: width, ROWS: rows, 48: 4096, KV_HEADS * 8: width // 2}
    held = {}
    for name, shape in shapes.items():
        for layer in range(3) if "layers" in name else [0]:
            held[name.replace(".0.", f".{layer}.")] = random.random([sizes[n] for n in shape], np.float32)
    save_file(held, large / "model.safetensors")
    del held
    done = subprocess.run([sys.executable, "-c", code, small, large], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.3


def test_a_published_model_in_a_notebook(tmp_path):
    """Texts are scored as by the family's own loss on the ids that the tokenizer gives, the first given."""
    for adds_begin in (False, True):
        folder = make_folder(tmp_path / str(adds_begin), adds_begin=adds_begin)
        model = gentrain.load(f"hf:{folder}")
        text = "a tale told 🐙"
        ids = model.spec.tokenizer.library.encode(text).ids
        assert (ids[0] == 0) == adds_begin
        logits = forward(KINDS["llama"], tensors(KINDS["llama"]), np.array(ids))
        log_prob = scipy.special.log_softmax(logits, axis=-1)
        expected = sum(log_prob[place, token] for place, token in enumerate(ids[1:]))
        np.testing.assert_allclose(model.log_prob([text, "other"])[0], expected, rtol=1e-5)
        greedy = list(ids)
        for _ in range(6):
            greedy.append(int(forward(KINDS["llama"], tensors(KINDS["llama"]), np.array(greedy))[-1].argmax()))
        found = model.generate([text], length=6, temperature=0.0)[0]
        assert found.tokens.tolist() == greedy[len(ids) :]
        assert "".join(model.stream(text, length=6, temperature=0.0)) == found.text
