"""The tokenizer.json of a model in GGUF, from the vocabulary that its metadata hold.

It cuts texts as llama.cpp does. transformers' own reader of GGUF does the same, but for two things that it leaves out:
SmolLM's digits, each of which stands alone, and that Llama 3 takes a whole word without a merge.
"""

import json
from pathlib import Path
from typing import Any

from gentrain.errors import CheckpointError, ConfigError

CONTROL, USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's
LLAMA_3 = ("llama-bpe", "llama3", "llama-v3")
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def bytes_cut(by_words: bool) -> dict[str, Any]:
    """The step that writes bytes as letters; by_words: after it has cut as GPT-2 does."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": by_words}


def cut(*first: dict[str, Any], by_words: bool = False) -> dict[str, Any]:
    """Steps one after the other, and the bytes last."""
    return {"type": "Sequence", "pretokenizers": [*first, bytes_cut(by_words)]}


def words(digits: str) -> dict[str, Any]:
    """The step that cuts as tiktoken does; digits: which of them stay together."""
    pattern = {"Regex": WORDS.replace("DIGITS", digits)}
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


# How a text is cut before its pieces are merged, by tokenizer.ggml.pre.
CUTS = {
    **dict.fromkeys(("gpt-2", "default"), bytes_cut(by_words=True)),
    "smollm": cut({"type": "Digits", "individual_digits": True}, by_words=True),
    "qwen2": cut(words(r"\p{N}")),
    **dict.fromkeys(LLAMA_3, cut(words(r"\p{N}{1,3}"))),
}


def ends_of(said: dict[str, Any], vocabulary: int) -> tuple[int | None, int | None, bool]:
    """The tokens that begin and end a text, and whether the first is put before each. Raises ValueError where the
    metadata do not fit a vocabulary of this size."""
    tokens = said.get("tokenizer.ggml.tokens")
    if tokens is not None and len(tokens) != vocabulary:
        raise ValueError(f"its tokenizer has {len(tokens)} tokens: expected {vocabulary}, as its embedding has rows")
    found: dict[str, int | None] = {}
    for name in ("bos", "eos"):
        number = found[name] = said.get(f"tokenizer.ggml.{name}_token_id")
        if number is not None and (type(number) is not int or not 0 <= number < vocabulary):
            raise ValueError(f"its tokenizer.ggml.{name}_token_id is {number!r}: expected less than {vocabulary}")
    default = said.get("tokenizer.ggml.model") == "llama" or said.get("tokenizer.ggml.pre") in LLAMA_3
    adds = found["bos"] is not None and bool(said.get("tokenizer.ggml.add_bos_token", default))
    return found["bos"], found["eos"], adds


def tokenizer_json(said: dict[str, Any], path: Path) -> bytes:
    """The tokenizer.json of the file at `path`. Raises ConfigError for a tokenizer that is not known, CheckpointError
    for a damaged one."""
    kinds = {"gpt2": byte_level, "llama": sentence_piece}
    if said["tokenizer.ggml.model"] not in kinds:
        raise ConfigError(f"{path}: its tokenizer is {said['tokenizer.ggml.model']!r}: expected one of {[*kinds]}")
    try:
        tokens = said["tokenizer.ggml.tokens"]
        numbers = {text: number for number, text in enumerate(tokens)}
        if len(numbers) != len(tokens):
            raise ValueError("its vocabulary has a token twice")
        parts = kinds[said["tokenizer.ggml.model"]](said, numbers)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged: it does not say {error.args[0]}") from None
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    whole: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added(said, tokens)}
    whole |= {"normalizer": None, "post_processor": template(said, tokens), **parts}
    return json.dumps(whole, ensure_ascii=False).encode()


def byte_level(said: dict[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    """The parts of a BPE of bytes, as GPT-2 has it. numbers: of the tokens."""
    if (pre := said.get("tokenizer.ggml.pre")) not in CUTS:
        raise ConfigError(f"its tokenizer cuts texts as {pre!r}: expected one of {', '.join(CUTS)}")
    pairs = [merge.split(" ") for merge in said["tokenizer.ggml.merges"]]
    for pair in pairs:
        if len(pair) != 2 or not numbers.keys() >= {*pair, "".join(pair)}:
            raise ValueError(f"its tokenizer cannot merge {pair}")
    bpe = {"type": "BPE", "vocab": numbers, "merges": pairs, "ignore_merges": pre in LLAMA_3}
    return {"pre_tokenizer": CUTS[pre], "decoder": {**bytes_cut(by_words=True), "add_prefix_space": True}, "model": bpe}


def sentence_piece(said: dict[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    """The parts of a BPE of SentencePiece, which writes unknown characters as bytes.

    It merges the pair whose token has the best score, so every pair that makes a token is a merge, best scores first.
    """
    scores, pairs = said["tokenizer.ggml.scores"], []
    if len(scores) != len(numbers):
        raise ValueError(f"its tokenizer has {len(scores)} scores: expected {len(numbers)}")
    for text, score in zip(numbers, scores.tolist(), strict=True):
        halves = [(text[:at], text[at:]) for at in range(1, len(text))]
        known = [(left, right) for left, right in halves if left in numbers and right in numbers]
        known.sort(key=lambda pair: (numbers[pair[0]], numbers[pair[1]]))
        pairs += [(score, left, right) for left, right in known]
    pairs.sort(key=lambda pair: (pair[0], len(pair[1]), len(pair[2])), reverse=True)
    bpe = {"type": "BPE", "vocab": numbers, "merges": [pair[1:] for pair in pairs]}
    prefix = bool(said.get("tokenizer.ggml.add_space_prefix", True))
    scheme = "first" if prefix else "never"
    decoders: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    decoders += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    decoders += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "pre_tokenizer": {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False},
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {**bpe, "fuse_unk": True, "byte_fallback": True},
    }


def added(said: dict[str, Any], tokens: list[str]) -> list[dict[str, Any]]:
    """The tokens that are found in a text before all else: those of control, and those that a person defined."""
    kinds = list(said.get("tokenizer.ggml.token_type", [0] * len(tokens)))
    named = {said.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "unknown", "padding")}
    found = []
    for number, (text, kind) in enumerate(zip(tokens, kinds, strict=True)):
        special = kind == CONTROL or number in named
        if special or kind == USER_DEFINED:
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            found.append({"id": number, "content": text, **flags, "special": bool(special)})
    return found


def template(said: dict[str, Any], tokens: list[str]) -> dict[str, Any] | None:
    """The step that puts a token before each text, or None where there is none to put."""
    begin, _, adds = ends_of(said, len(tokens))
    if begin is None or not adds:
        return None
    name, text = tokens[begin], {"Sequence": {"id": "A", "type_id": 0}}
    special = {"SpecialToken": {"id": name, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [special, text],
        "pair": [special, text, special, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [begin], "tokens": [name]}},
    }
