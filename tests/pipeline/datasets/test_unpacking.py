"""Archives from anywhere: what they hold arrives, and what they should not hold is refused by name."""

import contextlib
import gzip
import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pixelmill.pipeline.datasets.unpacking import UnpackingLimits, unpack
from pixelmill.pipeline.errors import RequestError

LIMITS = UnpackingLimits(max_files=100, max_bytes=10_000_000)
FILES = {"pets/cat/1.png": b"first", "pets/dog/2.png": b"second", "./pets/dog/m\xf6we.png": b""}
Pack = Callable[[dict[str, bytes]], bytes]


def pack_zip(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pets/", b"")
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def pack_tar(files: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        folder = tarfile.TarInfo("pets")
        folder.type = tarfile.DIRTYPE
        for member in (folder, *special):
            archive.addfile(member)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


PACKS: dict[str, Pack] = {
    "zip": pack_zip,
    "tar": pack_tar,
    "gzip": lambda files: gzip.compress(pack_tar(files)),
    "zstd": lambda files: zstandard.compress(pack_tar(files)),
    "zstd in two frames": lambda files: (
        zstandard.compress(pack_tar(files)[:700]) + zstandard.compress(pack_tar(files)[700:])
    ),
}


def unpacked(content: bytes, tmp_path: Path, limits: UnpackingLimits = LIMITS) -> dict[str, bytes]:
    archive, folder = tmp_path / "archive", tmp_path / "unpacked"
    archive.write_bytes(content)
    folder.mkdir()
    unpack(archive, "pets.zip", folder, limits)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def refused(content: bytes, tmp_path: Path, limits: UnpackingLimits = LIMITS) -> str:
    with pytest.raises(RequestError) as caught:
        unpacked(content, tmp_path, limits)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "unpacked"}
    return str(caught.value)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("kind", PACKS)
def test_files_arrive_as_they_were_packed(kind: str, tmp_path: Path) -> None:
    assert unpacked(PACKS[kind](FILES), tmp_path) == {
        name.removeprefix("./"): data for name, data in FILES.items()
    }


@pytest.mark.parametrize("kind", ["zip", "gzip"])
@pytest.mark.parametrize(
    "name", ["../outside.png", "pets/../../outside.png", "/outside.png", "..\\outside.png"]
)
def test_a_name_that_leads_out_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    message = refused(PACKS[kind]({**FILES, name: b"x"}), tmp_path)
    assert "outside.png" in message
    assert "out of the archive" in message


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (special("pets/link", tarfile.SYMTYPE, "cat"), "'pets/link' is a link"),
        (special("pets/link", tarfile.SYMTYPE, "/etc/passwd"), "'pets/link' is a link"),
        (special("pets/link", tarfile.LNKTYPE, "pets/cat/1.png"), "'pets/link' is a link"),
        (special("pets/pipe", tarfile.FIFOTYPE), "'pets/pipe' is a device"),
        (special("pets/null", tarfile.CHRTYPE), "'pets/null' is a device"),
    ],
)
def test_links_and_devices_in_a_tar_archive_are_refused(
    member: tarfile.TarInfo, reason: str, tmp_path: Path
) -> None:
    assert reason in refused(pack_tar(FILES, member), tmp_path)


@pytest.mark.parametrize(("mode", "reason"), [(stat.S_IFLNK, "is a link"), (stat.S_IFCHR, "is a device")])
def test_links_and_devices_in_a_zip_archive_are_refused(mode: int, reason: str, tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        member = zipfile.ZipInfo("pets/link")
        member.external_attr = (mode | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    assert f"'pets/link' {reason}" in refused(content.getvalue(), tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(kind: str, tmp_path: Path) -> None:
    twice = {"pets/cat.png": b"1", "pets/./cat.png": b"2"}
    assert "'pets/cat.png' is in it twice" in refused(PACKS[kind](twice), tmp_path)


def test_a_file_that_is_also_a_folder_is_refused(tmp_path: Path) -> None:
    assert "a file and a folder" in refused(pack_tar({"pets/cat": b"1", "pets/cat/1.png": b"2"}), tmp_path)


@pytest.mark.parametrize("kind", ["zip", "gzip", "zstd"])
def test_a_bomb_is_refused_before_it_fills_the_disk(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixelmill.pipeline.datasets.unpacking._FREE_BYTES", 1 << 20)
    limits = UnpackingLimits(100, 1 << 40)
    bomb = PACKS[kind]({"pets/cat/1.png": bytes(50_000_000)})
    assert "expected files at most 200 times as large as the archive" in refused(bomb, tmp_path, limits)
    written = sum(path.stat().st_size for path in (tmp_path / "unpacked").rglob("*") if path.is_file())
    assert written <= max(1 << 20, 200 * len(bomb)) + (1 << 20)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_files_or_bytes_are_refused(kind: str, tmp_path: Path) -> None:
    many = PACKS[kind]({f"pets/{number}.png": b"x" for number in range(6)})
    assert "pets.zip has more than 5 files" in refused(many, tmp_path, UnpackingLimits(5, 1_000_000))
    (tmp_path / "more").mkdir()
    large = PACKS[kind]({"pets/1.png": np.random.default_rng(0).bytes(30_000)})
    message = refused(large, tmp_path / "more", UnpackingLimits(5, 20_000))
    assert "unpacks to more than 20000 bytes; expected an archive within dataset.max_bytes" in message


@pytest.mark.parametrize("kind", PACKS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_an_archive_that_is_cut_off_is_refused(kind: str, share: float, tmp_path: Path) -> None:
    noise = {f"pets/{number}.png": np.random.default_rng(number).bytes(20_000) for number in range(3)}
    content = PACKS[kind](noise)
    assert "pets.zip cannot be unpacked (" in refused(content[: int(len(content) * share)], tmp_path)


def test_a_tar_archive_that_ends_between_two_files_is_refused(tmp_path: Path) -> None:
    content = pack_tar({"pets/1.png": b"1" * 512, "pets/2.png": b"2" * 512})
    assert "its end is missing" in refused(content[: 512 * 3], tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no archive"),
        (b"\x89PNG", "is no archive"),
        (b" <!doctype html><title>404</title>", "is a page of HTML or XML"),
    ],
)
def test_what_is_no_archive_is_said_to_be_none(content: bytes, reason: str, tmp_path: Path) -> None:
    assert f"pets.zip {reason}; expected a .zip, .tar, .tar.gz or .tar.zst file" in refused(content, tmp_path)


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    content = bytearray(pack_zip({"pets/cat/1.png": b"x"}))
    position = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    content[position + 8] |= 1
    assert "'pets/cat/1.png' is encrypted" in refused(bytes(content), tmp_path)


@given(kind=st.sampled_from(sorted(PACKS)), seed=st.integers(0, 1 << 32))
def test_a_damaged_archive_is_unpacked_or_refused(
    kind: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chance = random.Random(seed)
    content = bytearray(PACKS[kind](FILES))
    for _ in range(chance.randint(1, 6)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    folder = tmp_path_factory.mktemp("damaged")
    with contextlib.suppress(RequestError):
        unpacked(bytes(content), folder)
    assert {path.name for path in folder.iterdir()} == {"archive", "unpacked"}
