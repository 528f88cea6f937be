"""Small published models, made here: tensors under the names of their families, and a tokenizer."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

WIDTH, HEADS, KV_HEADS, MLP, LAYERS, ROWS = 32, 4, 2, 48, 3, 320
TEXT = "It is a tale told by an idiot, full of sound and fury, signifying nothing. naïve ∀ 🐙\n\n  twice  "
LLAMA = {
    "model_type": "llama",
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "intermediate_size": MLP,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": ROWS,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": True,
}
KINDS = {
    "llama": LLAMA,
    "llama untied, scaled": LLAMA
    | {
        "tie_word_embeddings": False,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "qwen2": LLAMA | {"model_type": "qwen2"},
    "qwen3": LLAMA | {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": False},
}


def tensors(config: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Random ones, by the shapes that the family's own code gives them: (outputs, inputs)."""
    random, size = np.random.default_rng(seed), config.get("head_dim", WIDTH // HEADS)

    def draw(*shape):
        return random.normal(0.0, 0.3, shape).astype(np.float32) + (len(shape) == 1)

    found = {"model.embed_tokens.weight": draw(ROWS, WIDTH), "model.norm.weight": draw(WIDTH)}
    for layer in range(LAYERS):
        start = f"model.layers.{layer}."
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            found[f"{start}self_attn.{name}_proj.weight"] = draw(heads * size, WIDTH)
            if config["model_type"] == "qwen2":
                found[f"{start}self_attn.{name}_proj.bias"] = draw(heads * size)
            if config["model_type"] == "qwen3" and name != "v":
                found[f"{start}self_attn.{name}_norm.weight"] = draw(size)
        found[f"{start}self_attn.o_proj.weight"] = draw(WIDTH, HEADS * size)
        found |= {f"{start}mlp.{name}_proj.weight": draw(MLP, WIDTH) for name in ("gate", "up")}
        found[f"{start}mlp.down_proj.weight"] = draw(WIDTH, MLP)
        found |= {f"{start}{name}_layernorm.weight": draw(WIDTH) for name in ("input", "post_attention")}
    return found if config["tie_word_embeddings"] else found | {"lm_head.weight": draw(ROWS, WIDTH)}


def make_tokenizer(adds_begin: bool) -> Tokenizer:
    """Byte-level BPE with <s> and </s> as tokens 0 and 1."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    library.train_from_iterator([TEXT] * 3, trainer)
    if adds_begin:
        library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return library


def make_folder(folder: Path, kind: str = "llama", adds_begin: bool = False, seed: int = 0, **config) -> Path:
    """A Hugging Face folder; config: what its config.json says otherwise."""
    folder.mkdir()
    said = KINDS[kind] | config
    save_file(tensors(KINDS[kind], seed), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(said))
    make_tokenizer(adds_begin).save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>"}}
    names |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def change(folder: Path, **changed: np.ndarray | None) -> None:
    """Other tensors in the folder's file, by their names with __ for a dot; None: the tensor is left out."""
    file = folder / "model.safetensors"
    held = load_file(file) | {name.replace("__", "."): tensor for name, tensor in changed.items()}
    save_file({name: tensor for name, tensor in held.items() if tensor is not None}, file)
