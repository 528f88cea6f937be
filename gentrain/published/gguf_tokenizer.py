"""The tokenizer.json of a model in GGUF, from the vocabulary that its metadata hold.

It cuts texts as llama.cpp and the tokenizers that were published with the models do. transformers' own reader of GGUF
leaves three things out: that each of SmolLM's digits stands alone, that Llama 3 takes a whole word without a merge, and
that SentencePiece puts a space before a text which begins with one too. That space also follows each special token in a
text, as Llama 2 has it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from gentrain.errors import CheckpointError, ConfigError
from gentrain.published.gguf_header import Header

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


def ends_of(header: Header, vocabulary: int) -> tuple[int | None, int | None, bool]:
    """The tokens that begin and end a text, and whether the first is put before each. Raises ValueError where the
    header does not fit a vocabulary of this size."""
    count = len(header.find("tokenizer.ggml.tokens", list)) if "tokenizer.ggml.tokens" in header.said else vocabulary
    if count != vocabulary:
        raise ValueError(f"its tokenizer has {count} tokens: expected {vocabulary}, as its embedding has rows")
    begin, end = (header.find(f"tokenizer.ggml.{name}_token_id", int, -1) for name in ("bos", "eos"))
    if max(begin, end) >= vocabulary:
        raise ValueError(f"its texts begin with token {begin} and end with {end}: expected less than {vocabulary}")
    by_itself = header.said.get("tokenizer.ggml.model") == "llama" or header.said.get("tokenizer.ggml.pre") in LLAMA_3
    adds = header.find("tokenizer.ggml.add_bos_token", bool, by_itself) and begin >= 0
    return begin if begin >= 0 else None, end if end >= 0 else None, adds


def tokenizer_json(header: Header, path: Path) -> bytes:
    """The tokenizer.json of the file at `path`. Raises ConfigError for a tokenizer that is not known, CheckpointError
    for a damaged one."""
    try:
        model = header.find("tokenizer.ggml.model", str)
        if model not in MODELS:
            raise ConfigError(f"its tokenizer is {model!r}: expected one of {', '.join(MODELS)}")
        tokens = header.find("tokenizer.ggml.tokens", list)
        numbers = {text: number for number, text in enumerate(tokens)}
        if len(numbers) != len(tokens):
            raise ValueError("its tokenizer has a token twice")
        whole: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None}
        whole |= {"added_tokens": added(header, tokens), "post_processor": template(header, tokens)}
        whole |= MODELS[model](header, numbers)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    return json.dumps(whole, ensure_ascii=False).encode()


def byte_level(header: Header, numbers: dict[str, int]) -> dict[str, Any]:
    """The parts of a BPE of bytes, as GPT-2 has it. numbers: of the tokens."""
    if (pre := header.find("tokenizer.ggml.pre", str, "missing")) not in CUTS:
        raise ConfigError(f"its tokenizer.ggml.pre is {pre}: expected one of {', '.join(CUTS)}")
    pairs = [merge.split(" ") for merge in header.find("tokenizer.ggml.merges", list)]
    for pair in pairs:
        if len(pair) != 2 or not numbers.keys() >= {*pair, "".join(pair)}:
            raise ValueError(f"its tokenizer cannot merge {pair}")
    bpe = {"type": "BPE", "vocab": numbers, "merges": pairs, "ignore_merges": pre in LLAMA_3}
    return {"pre_tokenizer": CUTS[pre], "decoder": {**bytes_cut(by_words=True), "add_prefix_space": True}, "model": bpe}


def sentence_piece(header: Header, numbers: dict[str, int]) -> dict[str, Any]:
    """The parts of a BPE of SentencePiece, which writes unknown characters as bytes.

    It merges the pair whose token has the best score, so every pair that makes a token is a merge, best scores first.
    """
    scores, pairs = header.find("tokenizer.ggml.scores", np.ndarray), []
    if len(scores) != len(numbers):
        raise ValueError(f"its tokenizer has {len(scores)} scores: expected {len(numbers)}")
    for text, score in zip(numbers, scores.tolist(), strict=True):
        halves = [(text[:at], text[at:]) for at in range(1, len(text))]
        known = [(left, right) for left, right in halves if left in numbers and right in numbers]
        known.sort(key=lambda pair: (numbers[pair[0]], numbers[pair[1]]))
        pairs += [(score, left, right) for left, right in known]
    pairs.sort(key=lambda pair: (pair[0], len(pair[1]), len(pair[2])), reverse=True)
    bpe = {"type": "BPE", "vocab": numbers, "merges": [pair[1:] for pair in pairs]}
    there: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    back: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    back += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if header.find("tokenizer.ggml.add_space_prefix", bool, True):
        there.insert(0, {"type": "Prepend", "prepend": SPACE})
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": there},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": back},
        "model": {**bpe, "fuse_unk": True, "byte_fallback": True},
    }


MODELS = {"gpt2": byte_level, "llama": sentence_piece}  # by tokenizer.ggml.model


def added(header: Header, tokens: list[str]) -> list[dict[str, Any]]:
    """The tokens that are found in a text before all else: those of control, and those that a person defined."""
    kinds = header.find("tokenizer.ggml.token_type", np.ndarray, np.zeros(len(tokens), int)).tolist()
    if len(kinds) != len(tokens):
        raise ValueError(f"its tokenizer has kinds of {len(kinds)} tokens: expected {len(tokens)}")
    named = {header.said.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "unknown", "padding")}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    found = []
    for number, (text, kind) in enumerate(zip(tokens, kinds, strict=True)):
        special = kind == CONTROL or number in named
        if special or kind == USER_DEFINED:
            found.append({"id": number, "content": text, **flags, "special": special})
    return found


def template(header: Header, tokens: list[str]) -> dict[str, Any] | None:
    """The step that puts a token before each text, or None where there is none to put."""
    begin, _, adds = ends_of(header, len(tokens))
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
