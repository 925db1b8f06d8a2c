"""Integrity of checkpoint files: SHA-256 checksums and validated safetensors.

`sha256sum --check SHA256SUMS` reads the checksums. Checkpoints of the first versions have none and are not verified.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from transformer.errors import CheckpointError
from transformer.files import is_special_file
from transformer.training.run_directory import CHECKSUMS, older_checkpoints

_FORMAT = 2
_READABLE = {"1", "2"}
FILES = {
    *("config.yaml", "tokenizer.model", "source_tokenizer.model"),
    *("model.safetensors", "optimizer.safetensors", "training.json"),
}
# Raised by safetensors; RuntimeError by torch, for example if too many files are open.
_UNREADABLE = (SafetensorError, OSError, RuntimeError)

# Weights of format 1 under their present names: regular expressions, applied one after the other.
_RENAMES = (
    (r"^embeddings\.source_weight$", r"embedding.weight"),
    (r"^embeddings\.target_weight$", r"embedding.target_weight"),
    (r"^embeddings\.output_weight$", r"embedding.projection_weight"),
    (r"\.residual_1\.norm\.", r".norm_1."),
    (r"^(decoder\..*)\.residual_2\.norm\.", r"\1.norm_cross."),
    (r"^(decoder\..*)\.residual_3\.norm\.", r"\1.norm_2."),
    (r"\.residual_2\.norm\.", r".norm_2."),
    (r"\.score\.", r".attention."),
    (r"\.relative\.table$", r".relative_bias.table"),
    (r"\.relative\.(key|value)s\.(\d+)$", r".layers.\2.self_attention.attention.\1_table"),
)


def write_checksums(directory: Path) -> None:
    """Write `SHA256SUMS` for all files of a directory."""
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(directory.iterdir())]
    (directory / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def verify(directory: Path) -> None:
    """CheckpointError if a file is damaged, missing or foreign; names an intact checkpoint."""
    if (fault := _fault(directory)) is None:
        return
    for path in older_checkpoints(directory):
        if _fault(path) is None:
            advice = f"{path} is intact: use it, or remove {directory} and rerun to resume from an older one"
            raise CheckpointError(f"{fault}; {advice}")
    raise CheckpointError(f"{fault}; no older checkpoint is intact")


def _fault(directory: Path) -> str | None:
    path = directory / CHECKSUMS
    try:
        if not os.path.lexists(path):
            return None
        if not path.is_file():  # reading a pipe may never end
            return f"{path}: not a regular file"
        sums = [line.split("  ", maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines()]
        named = {name: digest for digest, name in sums}
        if foreign := sorted(named.keys() - FILES):
            return f"{path}: lists {foreign[0]!r}, which does not belong to a checkpoint"
        if unknown := sorted({file.name for file in directory.iterdir()} & FILES - named.keys()):
            return f"{directory / unknown[0]}: does not belong to this checkpoint (not listed in {CHECKSUMS})"
        for name, digest in named.items():
            if not (directory / name).is_file():
                return f"{directory / name}: is missing"
            if sha256(directory / name) != digest:
                return f"{directory / name}: is damaged or of another checkpoint (SHA-256 differs from {CHECKSUMS})"
    except ValueError:
        return f"{path}: is damaged"
    except OSError as error:
        return f"{error.filename or directory}: cannot be read: {error.strerror or error}"
    return None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as `sha256sum` prints it. OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: dict[str, Tensor], averaged_steps: Sequence[int] = ()) -> None:
    """Write a safetensors file beside `config.yaml`, with the same permissions. OSError."""
    metadata = {"format": str(_FORMAT)}
    if averaged_steps:
        metadata["averaged_steps"] = " ".join(map(str, averaged_steps))
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, metadata=metadata)
        # Safetensors makes the file unreadable for others, whatever the umask.
        shutil.copymode(path.with_name("config.yaml"), path)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from None


def averaged_steps(path: Path) -> list[int]:
    """The steps whose mean a file of weights says that it is; empty if it does not say so, or cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            words = (file.metadata() or {}).get("averaged_steps", "").split()
    except _UNREADABLE:
        return []
    return [int(word) for word in words if word.isdecimal() and word.isascii()]


def load_tensors(path: Path, names: Collection[str] = ()) -> dict[str, Tensor]:
    """Read a safetensors file; weights, and moments of weights, under the model's `names`. CheckpointError."""
    read_shapes(path)  # checks the format
    try:
        return {present_name(name, names): tensor for name, tensor in load_file(path).items()}
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def read_shapes(path: Path, names: Collection[str] = ()) -> dict[str, tuple[int, ...]]:
    """The shapes in a safetensors header, likewise. CheckpointError for another format version."""
    if is_special_file(path):
        raise CheckpointError(f"{path}: cannot be read: not a regular file")
    try:
        with safe_open(path, framework="pt") as file:
            version = (file.metadata() or {}).get("format")
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    if version not in _READABLE:
        raise CheckpointError(f"{path}: checkpoint format {version!r}; this version reads formats 1 and {_FORMAT}")
    return {present_name(name, names): shape for name, shape in shapes.items()}


def present_name(name: str, names: Collection[str]) -> str:
    """The name of a weight or its moment, out of the model's `names`; unchanged unless it is of format 1."""
    moment, _, weight = name.partition(".")
    if moment in ("exp_avg", "exp_avg_sq", "raw"):
        return f"{moment}.{present_name(weight, names)}"
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    # An attention may be wrapped, such as a score inside of rotary positions.
    path, _, last = name.rpartition(".")
    wrapped = (f"{path}{'.inner' * depth}.{last}" for depth in (1, 2))
    return name if name in names else next(filter(names.__contains__, wrapped), name)


def check_finite(path: Path, name: str, tensor: Tensor, lowest: float | None = None) -> None:
    """CheckpointError unless a tensor is floating-point, finite and at least `lowest`."""
    if not tensor.is_floating_point() or not tensor.isfinite().all():
        raise CheckpointError(f"{path}: {name} contains non-finite values")
    if lowest is not None and tensor.numel() and tensor.min() < lowest:
        raise CheckpointError(f"{path}: {name} contains values below {lowest}")


def check_like(path: Path, tensors: dict[str, Tensor], name: str, like: Tensor) -> None:
    """CheckpointError unless a tensor exists with the shape and dtype of `like`."""
    if name not in tensors:
        raise CheckpointError(f"{path}: {name!r} is missing")
    found = tensors[name]
    if (found.shape, found.dtype) != (like.shape, like.dtype):
        raise CheckpointError(
            f"{path}: {name} is {tuple(found.shape)} of {found.dtype}, not {tuple(like.shape)} of {like.dtype}"
        )
