"""A tokenizer as the files that the `tokenizers` library reads."""

import json

from gentrain.datasets.published_tokenizer import PublishedTokenizer
from gentrain.datasets.tokenizers import UNKNOWN_CHARACTER, Bytes, Chars, Tokenizer

END = "</s>"
SPLIT = r"[\s\S]"  # one character, line breaks too


def published_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """tokenizer.json and tokenizer_config.json by their names; none where that library has no tokenizer of this kind.

    One that was learned here puts its end before a text, in place of BOS, which has no number of its own.
    """
    if isinstance(tokenizer, PublishedTokenizer):
        return {"tokenizer.json": tokenizer.content, "tokenizer_config.json": json.dumps(tokenizer.config).encode()}
    if not isinstance(tokenizer, Bytes | Chars):
        return {}
    from tokenizers import AddedToken, processors

    library = of_bytes() if isinstance(tokenizer, Bytes) else of_characters(tokenizer)
    library.add_special_tokens([AddedToken(END, normalized=False)])
    library.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, tokenizer.end)]
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
    }
    return {"tokenizer.json": library.to_str().encode(), "tokenizer_config.json": json.dumps(config).encode()}


def of_bytes():
    """The bytes of UTF-8, each under the character by which that library writes it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # these bytes are written as themselves,
    others = [byte for byte in range(256) if byte not in printable]  # and these as the characters from 256 on
    names = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    library = Tokenizer(models.BPE({names[byte]: byte for byte in range(256)}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    return library


def of_characters(tokenizer: Chars):
    """The characters of its alphabet; others are unknown, or an error where it has no unknown character."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    numbers = {symbol: number for number, symbol in enumerate(tokenizer.alphabet)}
    library = Tokenizer(models.WordLevel(numbers, unk_token=UNKNOWN_CHARACTER))
    library.pre_tokenizer = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    library.decoder = decoders.Fuse()
    return library
