"""Random malformed values for configurations, checkpoints and command lines."""

from __future__ import annotations

import random
import string

import torch
import yaml
from mutators import mutate, text, text_file

from transformer.config import Config

_NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "0.5",
    "-0.0",
    "1e9",
    "1.0e-9",
    "1.0e+308",
    "1.0e+309",
    ".inf",
    "-.inf",
    ".nan",
    "nan",
    "1e400",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "0x_",
    "0b_",
    "0o9",
    "1_000",
    "1:30",
    "1:59.5",
    "99999999999999999999999",
    "0x" + "f" * 5000,
    "9" * 5000,
    "1048577",
    "inf",
)
_SCALARS = (
    "null",
    "~",
    "true",
    "no",
    "''",
    '""',
    "text",
    "2024-02-30",
    "2024-01-01",
    "[1, 2]",
    "{a: 1}",
    "!!int ''",
    "!!bool x",
    "!!timestamp x",
    "!!python/object/apply:os.system [ls]",
    "!!binary x",
    "&a [*a]",
    "*a",
    "<<",
    "=",
    "? [1]",
    "'\\0'",
    '"\\0"',
    '"\\ud800"',
    '"\\x1b[31m"',
    "|\n  text",
    "- - - 1",
    "[" * 60,
    "{" * 50,
    "builtin",
    "../../x",
    "/etc/passwd",
    "{split}.{lang}",
    "a/b",
    "..",
    "auto",
    "@",
    "`",
    "%",
    "# comment",
    "post",
    "t5",
    "rotary",
    "shaw",
    "dot",
    "cuda",
    "power",
    "none",
    "[{path: a.csv, weight: 2}, b]",
    "[{src: a, tgt: b, tag: <bt>}]",
    "[{path: a, weight: .nan}, {}]",
    "<bt>",
    "[copies, numbers]",
    "[validation, test]",
    "cosine",
    "constant",
    "chrf",
    "[test, news=builtin]",
    "a=b",
)

_DEFAULTS = {key: yaml.safe_dump(value).splitlines()[0] for key, value in Config().flat().items()}
_WHOLE = Config().to_yaml().encode()


def scalar(rng: random.Random) -> str:
    """A YAML scalar, or something like one."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(_NUMBERS)
    if kind < 0.85:
        return rng.choice(_SCALARS)
    return text(rng)


def config_key(rng: random.Random) -> str:
    """A dotted key, mostly an existing one."""
    key = rng.choice(list(_DEFAULTS))
    kind = rng.random()
    if kind < 0.8:
        return key
    if kind < 0.9:
        return key[: rng.randrange(len(key))]
    return rng.choice(("", ".", "model", "base", "model..d_model", "a.b.c.d", "model.d_model.x", text(rng)))


def override(rng: random.Random) -> str:
    """`section.key=value`, sometimes malformed."""
    key = config_key(rng)
    return f"{key}{rng.choice(('=',) * 9 + ('', '==', ' = '))}{_value(rng, key)}"


def _value(rng: random.Random, key: str) -> str:
    """Half of the time a valid value: otherwise the first error would hide all others."""
    return _DEFAULTS.get(key, "") if rng.random() < 0.5 else scalar(rng)


def config_file(rng: random.Random, bases: tuple[str, ...] = ()) -> bytes:
    """A YAML file: a configuration with malformed values or mutated bytes, or any text."""
    lines = []
    if bases and rng.random() < 0.3:
        lines.append(f"base: {rng.choice(bases)}")
    for section in rng.sample(("model", "data", "train", "search"), rng.randrange(4)):
        keys = rng.sample([key for key in _DEFAULTS if key.startswith(f"{section}.")], rng.randrange(1, 4))
        values = [f"  {key.split('.')[1]}: {_value(rng, key)}" for key in keys]
        lines += [f"{section}:", *values]
    if rng.random() < 0.3:
        lines.append(f"{rng.choice(('seed', 'run_dir', 'seed', text(rng)))}: {scalar(rng)}")
    if rng.random() < 0.02:
        lines += [
            "a: &a [x, x, x, x, x, x, x, x, x]",
            *(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        ]
    if rng.random() < 0.002:
        lines.append(
            rng.choice(("run_dir: " + "x" * 200_000, "[" * 100_000, "- " * 20_000, "a: &a {<<: *a}", "? " * 9000))
        )
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    kind = rng.random()
    if kind < 0.5:
        return data
    if kind < 0.55:
        return text_file(rng)
    return mutate(rng, data if kind < 0.95 else _WHOLE, (_WHOLE,))


def whole_number(rng: random.Random) -> str:
    """A whole number of up to 400 digits."""
    return str(rng.randrange(10 ** rng.choice((1, 1, 2, 3, 4, 6, 9, 12, 20, 400))))


def word(rng: random.Random) -> str:
    """A command-line argument, which cannot contain NUL."""
    kind = rng.random()
    if kind < 0.3:
        value = rng.choice(_NUMBERS)[:200]
    elif kind < 0.5:
        value = rng.choice(
            (
                "../../x",
                "/",
                ".",
                "..",
                "-",
                "--",
                "-x",
                "org/name@..",
                "a/..",
                "@",
                "x\n y",
                "\udcff",
                "runs",
                "/dev/null",
            )
        )
    elif kind < 0.6:
        value = "".join(rng.choice(string.printable) for _ in range(rng.randrange(20)))
    elif kind < 0.8:
        value = override(rng)
    else:
        value = text(rng)
    return value.replace("\x00", "")[:5000]


def saved_config(rng: random.Random, config: bytes) -> bytes:
    """A checkpoint's configuration with mutated values, mostly still valid YAML."""
    if rng.random() < 0.5:
        return mutate(rng, config)
    raw = yaml.safe_load(config)
    section = rng.choice(("model", "search", "data", "model"))
    value = rng.choice(
        (1, 2, 3, 1000, 2**20, 0, -1, None, "x", 0.5, 1e6, "learned", "shaw", "../../x", "/etc/passwd", "{split}")
    )
    raw[section][rng.choice(list(raw[section]))] = value
    if rng.random() < 0.1:
        raw["base"] = "/etc/passwd"
    return yaml.safe_dump(raw).encode()


def tensor(rng: random.Random) -> torch.Tensor:
    """A tensor of an unexpected shape and dtype."""
    shape = rng.choice(((), (0,), (1,), (8,), (300, 8), (8, 300), (5056,), (16,), (1, 1, 1, 1)))
    return torch.full(shape, rng.choice((0, 1, 255)), dtype=rng.choice((torch.float32, torch.float16, torch.uint8)))
