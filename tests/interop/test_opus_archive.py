"""Archives of OPUS-MT's releases: read as their files are, and refused if they are damaged or hostile."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from transformer.errors import CheckpointError
from transformer.interop.foreign import read_model


def pack(directory: Path, archive: Path, prefix: str = "", compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(archive, "w", compression) as file:
        for path in sorted(directory.iterdir()):
            file.write(path, f"{prefix}{path.name}")
    return archive


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return read_model(path).to_checkpoint()[2]


@pytest.mark.parametrize("prefix", ["", "opus-2020-02-26/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_an_archive_is_read_as_its_files_are(release: Path, tmp_path: Path, prefix: str, compression: int) -> None:
    archive = pack(release, tmp_path / "opus.zip", prefix, compression)
    expected, found = weights_of(release), weights_of(archive)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_an_archive_without_a_release_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as file:
        file.writestr("a.txt", "text")
    with pytest.raises(CheckpointError, match=r"some\.zip: has no decoder\.yml: not a release of OPUS-MT"):
        weights_of(tmp_path / "some.zip")


def test_a_damaged_archive_is_refused(release: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"a\.zip: cannot be unpacked: "):
        weights_of(tmp_path / "a.zip")
    archive = pack(release, tmp_path / "b.zip", compression=zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    content[content.index(b"vocabs")] ^= 1  # inside decoder.yml, whose checksum then differs
    archive.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"b\.zip: cannot be unpacked: .*CRC"):
        weights_of(archive)


def test_an_archive_to_fill_the_disk_is_refused(release: Path, tmp_path: Path) -> None:
    (release / "source.spm").write_bytes(bytes(30 << 20))
    with pytest.raises(CheckpointError, match=r"source\.spm would have 31,457,280 bytes, more than a model's file"):
        weights_of(pack(release, tmp_path / "bomb.zip"))


def test_files_beside_the_release_are_not_unpacked(release: Path, tmp_path: Path, cache: Path) -> None:
    (release / "evil.sh").write_text("#!/bin/sh\n")
    archive = pack(release, tmp_path / "opus.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("../outside", "x")
    assert read_model(archive).name == str(archive)
    assert not (cache.parent / "outside").exists()
    assert not [*cache.glob(".unpacked-*")], "what was unpacked is removed"
