"""Random malformed texts and files, for the fuzzer and the property tests."""

from __future__ import annotations

import gzip
import json
import lzma
import random
from collections.abc import Callable
from typing import Any

import pyarrow

from transformer.data.builtin import builtin_trees

_SCRIPTS = (
    "Ä ß é ",
    "漢字かな",
    "עברית ",
    "العربية",
    "हिन्दी",
    "ไทย",
    "ᚠᚢᚦ",
    "😀👩‍👩‍👧‍👦🏳️‍🌈",
    "𒀀𓂀𝔘",
    "e\u0301a\u0300",
    "ﬁ½①Ⅷ",
    "▁⁇",
)
_ODDITIES = (
    "\x00",
    "\t",
    "\r",
    "\x0b",
    "\x0c",
    "\x1b[2J",
    "\x7f",
    "\x85",
    "\xa0",
    "\xad",
    "\u200b",
    "\u200d",
    "\u2028",
    "\u2029",
    "\u202e",
    "\u3000",
    "\ufeff",
    "\ufffe",
    "\uffff",
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "(",
    ")",
    "{split}",
    "%s",
    "'",
    '"',
)
_WORDS = ("A", "man", "is", "sleeping", ".", "Two", "dogs", "in", "the", "park", "der", "Hund")
_BAD_UTF8 = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x82", b"\xfe\xff\x00a")
_TREES = tuple(builtin_trees("test", 7))


def text(rng: random.Random) -> str:
    """One line without its line feed: words, any script, control characters; sometimes long or empty."""
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(("", " ", "\t", "\u3000", "\xa0 ", "\r", "\x00"))
    parts = []
    for _ in range(rng.choice((1, 2, 3, 5, 8, 13))):
        sort = rng.random()
        if sort < 0.5:
            parts.append(rng.choice(_WORDS))
        elif sort < 0.75:
            parts.append(rng.choice(_SCRIPTS))
        elif sort < 0.95:
            parts.append(rng.choice(_ODDITIES))
        else:
            parts.append(chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)))))
    line = rng.choice(("", " ", "  ")).join(parts).replace("\n", "")
    return line * rng.choice((100, 1000)) if kind > 0.995 else line


def text_file(rng: random.Random) -> bytes:
    """A text file of such lines: any line ends, byte order marks, encodings, invalid UTF-8."""
    lines = [text(rng) for _ in range(rng.choice((0, 1, 2, 3, 7)))]
    end = rng.choice(("\n", "\n", "\n", "\r\n", "\r", "\n\n"))
    content = end.join(lines) + rng.choice(("", end))
    encoding = rng.choice(("utf-8",) * 6 + ("utf-8-sig", "utf-16", "utf-32", "gb18030"))
    data = content.encode(encoding)
    if rng.random() < 0.2:
        place = rng.randrange(len(data) + 1)
        data = data[:place] + rng.choice((*_BAD_UTF8, b"\x00")) + data[place:]
    if rng.random() < 0.002:
        data += b"x" * rng.choice((10 << 20, (16 << 20) + 1))
    return data


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, 1),
    ".xz": lambda data: lzma.compress(data, preset=0),
    ".zst": lambda data: bytes(pyarrow.compress(data, codec="zstd", asbytes=True)),
}


def packed_file(rng: random.Random, suffix: str) -> bytes:
    """A compressed file: intact, truncated, mutated, with trailing bytes, or a decompression bomb (1,000:1)."""
    if rng.random() < 0.002:
        return PACK[suffix](bytes(64 << 20))
    data = PACK[suffix](text_file(rng))
    kind = rng.random()
    if kind < 0.3:
        return data
    if kind < 0.5:
        return data[: rng.randrange(len(data))]
    if kind < 0.7:
        return data + text_file(rng)
    return mutate(rng, data)


def mutate(rng: random.Random, data: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """Mutate bytes: flip, overwrite, delete, repeat, truncate; sometimes one of `others` instead."""
    if others and rng.random() < 0.1:
        return rng.choice(others)
    if rng.random() < 0.05:
        return rng.choice((b"", b"\x00" * len(data), b"\xff" * 8 + data, data + data, rng.randbytes(64)))
    buffer = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not buffer:
            break
        # Headers and footers, which say how to parse the rest, are at the ends.
        size = len(buffer)
        place = rng.choice(
            (rng.randrange(size), rng.randrange(min(size, 256)), size - 1 - rng.randrange(min(size, 256)))
        )
        kind = rng.random()
        if kind < 0.4:
            buffer[place] ^= 1 << rng.randrange(8)
        elif kind < 0.7:
            buffer[place] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif kind < 0.8:
            del buffer[place : place + rng.randrange(1, 40)]
        elif kind < 0.95:
            other = rng.randrange(size)
            buffer[place:place] = buffer[other : other + rng.randrange(1, 40)]
        else:
            del buffer[place:]
    return bytes(buffer)


def tree(rng: random.Random) -> str:
    """A bracketed tree, often malformed."""
    tokens = []
    for _ in range(rng.choice((1, 3, 10, 30))):
        tokens.append(
            rng.choice(
                (
                    "(",
                    "(S ",
                    "(NP ",
                    "(TOP ",
                    "(-NONE- *)",
                    "(NN dog)",
                    "(. .)",
                    ")",
                    ")",
                    ") ",
                    "word ",
                    "((",
                    text(rng),
                )
            )
        )
    line = "".join(tokens)
    kind = rng.random()
    if kind < 0.3:
        line = rng.choice(_TREES)
        place = rng.randrange(len(line))
        line = line[:place] + rng.choice(("", rng.choice(tokens))) + line[place + rng.randrange(2) :]
    elif kind < 0.6:
        line = f"(S (NP (NN {rng.choice(_WORDS)})) {line} (. .))"
    if rng.random() < 0.0005:
        depth = rng.choice((1000, 20_000))
        line = "(NP " * depth + "(NN dog)" + ")" * rng.choice((depth, depth - 1))
    return line


def nbest_list(rng: random.Random) -> bytes:
    """A list of candidates, mostly of one of the forms that are read."""
    form = rng.choice(("{text}", "{score}\t{text}", "{id} ||| {text} ||| F0= {score} ||| {score}"))
    numbers = ("-1.5", "0", "-inf", "inf", "nan", "1e400", "-1e-400", "x", "", "٣", "1_0")
    lines, id_ = [], 0
    for _ in range(rng.choice((0, 1, 2, 4, 12))):
        id_ += rng.choice((0, 0, 1, 1, 2, -1))
        score = "-1.5" if rng.random() < 0.8 else rng.choice(numbers)
        words = rng.choice(("Ein Mann.", "", " ||| ", "a\tb", text(rng).replace("\n", " ")))
        lines.append(form.format(text=words, score=score, id=id_ if rng.random() < 0.9 else rng.choice(numbers)))
    data = "".join(f"{line}\n" for line in lines).encode(errors="surrogatepass")
    return data if rng.random() < 0.7 else mutate(rng, data)


def json_lines(rng: random.Random, records: list[dict[str, object]]) -> bytes:
    """Records as JSON lines, with mutated values and bytes."""
    lines = []
    for record in records:
        changed_record = dict(record)
        for key in rng.sample(list(record), min(len(record), rng.randrange(3))):
            if rng.random() < 0.3:
                del changed_record[key]
            else:
                changed_record[key] = json_value(rng)
        lines.append(json.dumps(changed_record if rng.random() < 0.95 else json_value(rng)))
    data = "\n".join(lines).encode()
    return mutate(rng, data) if rng.random() < 0.3 else data


def json_value(rng: random.Random) -> object:
    """A JSON value of a random type."""
    deep: list[object] = []
    for _ in range(rng.choice((2, 100))):
        deep = [deep]
    return rng.choice(
        (
            None,
            True,
            -1,
            0,
            1.5,
            1e308,
            float("nan"),
            float("inf"),
            10**30,
            "",
            "text",
            "\x1b[2J",
            text(rng),
            [],
            deep,
            {},
            {"a": 1},
        )
    )


def sentencepiece_model(rng: random.Random, model: bytes) -> bytes:
    """A SentencePiece model with mutated bytes, or with mutated fields of a valid message."""
    if rng.random() < 0.5:
        return mutate(rng, model)
    # SentencePiece's own description of its files; it needs protobuf, which TensorBoard brings.
    from sentencepiece import sentencepiece_model_pb2

    message: Any = vars(sentencepiece_model_pb2)["ModelProto"]()
    message.ParseFromString(model)
    for _ in range(rng.choice((1, 2, 5))):
        kind = rng.random()
        if kind < 0.3:
            piece = rng.choice(message.pieces)
            piece.type = rng.choice((1, 2, 3, 4, 5, 6))
            piece.score = rng.choice((0.0, -1e30, 1e30, float("nan"), float("inf")))
        elif kind < 0.5:
            rng.choice(message.pieces).piece = rng.choice(
                ("", "▁", rng.choice(message.pieces).piece, text(rng), "<0x41>", "x" * 10_000)
            )
        elif kind < 0.6:
            place = rng.randrange(len(message.pieces))
            del message.pieces[place : place + rng.choice((1, 10, 1000))]
        elif kind < 0.8:
            charsmap = message.normalizer_spec.precompiled_charsmap
            message.normalizer_spec.precompiled_charsmap = mutate(rng, charsmap or b"\x00\x00\x04\x00")
            message.normalizer_spec.normalization_rule_tsv = text(rng).encode(errors="replace").decode()
        else:
            spec = message.trainer_spec
            spec.model_type = rng.choice((1, 2, 3, 4))
            for name in rng.sample(("byte_fallback", "treat_whitespace_as_suffix"), 1):
                setattr(spec, name, not getattr(spec, name))
            setattr(
                spec,
                rng.choice(("pad_id", "unk_id", "bos_id", "eos_id", "vocab_size")),
                rng.choice((-1, 0, 1, 2, 3, 2**31 - 1)),
            )
        if not message.pieces:
            break
    return message.SerializeToString()
