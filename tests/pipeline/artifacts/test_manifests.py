"""Untrusted folders: malformed manifests, forged lists of files, and special files."""

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelmill.pipeline.artifacts import (
    MANIFEST,
    publishing,
    read_json,
    read_manifest,
    read_verified,
    require_only_listed,
    verify_files,
)
from pixelmill.pipeline.errors import PixelmillError, RequestError, WorkError

FACTS = {"sha256": "0" * 64, "size": 1}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact of two files."""
    with publishing(tmp_path / "1", {"kind": "test"}) as staging:
        (staging / "model.bin").write_bytes(bytes(1000))
        (staging / "golden").mkdir()
        (staging / "golden/tensors.npy").write_bytes(b"tensors")
    return tmp_path / "1"


def one_line(error: PixelmillError) -> str:
    assert len(str(error).splitlines()) == 1
    return str(error)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"3",
        b'"files"',
        b"{}",
        b'{"files": []}',
        b'{"files": null}',
        b'{"files": {"a": null}}',
        b'{"files": {"a": {}}}',
        b'{"files": {"a": {"sha256": 1, "size": 1}}}',
        b'{"files": {"a": {"sha256": "%s", "size": "1"}}}' % (b"0" * 64),
        b'{"files": {"a": {"sha256": "%s", "size": -1}}}' % (b"0" * 64),
        b'{"files": {"a": {"sha256": "%s", "size": 1.5}}}' % (b"0" * 64),
        b'{"files": {"a": {"sha256": "%s", "size": NaN}}}' % (b"0" * 64),
        b'{"files": {"a": {"sha256": "zz", "size": 1}}}',
        b'{"files": {"\\ud800": {"sha256": "%s", "size": 1}}}' % (b"0" * 64),
        b"[" * 100_000,
        b'{"files": ' * 100_000,
        b"1" * 10_000,
    ],
    ids=lambda content: content[:40].decode(errors="replace"),
)
def test_a_malformed_manifest_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(RequestError) as caught:
        verify_files(tmp_path)
    assert str(tmp_path / MANIFEST) in one_line(caught.value)


@given(JSON)
def test_whatever_a_manifest_holds_it_is_read_or_refused(tmp_path_factory: Any, value: Any) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / MANIFEST).write_text(json.dumps({"files": value}))
    with suppress(RequestError):
        assert all(set(facts) >= {"sha256", "size"} for facts in read_manifest(folder)["files"].values())


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "", ".", "..", "a//b", "./a", "a/", "a\0b"]
)
def test_names_that_lead_out_of_the_folder_are_refused(name: str, folder: Path) -> None:
    manifest = read_json(folder / MANIFEST)
    manifest["files"][name] = FACTS
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(RequestError, match="malformed"):
        verify_files(folder)


def as_fifo(path: Path) -> None:
    os.mkfifo(path)


def as_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # The address of a socket may have 107 bytes.
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def as_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def as_sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**42)


def as_outward_link(path: Path) -> None:
    outside = path.parent.parent / "outside"
    outside.write_bytes(bytes(1000))
    path.symlink_to(outside)


def as_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "replacement",
    [as_fifo, as_socket, as_endless_device, as_sparse_file, as_outward_link, as_loop, Path.mkdir],
    ids=lambda replacement: replacement.__name__,
)
def test_a_listed_file_that_is_no_file_neither_hangs_nor_passes(
    replacement: Callable[[Path], object], folder: Path
) -> None:
    (folder / "model.bin").unlink()
    replacement(folder / "model.bin")
    for read in (verify_files, lambda place: read_verified(place, "model.bin")):
        with pytest.raises(WorkError) as caught:
            read(folder)
        assert str(folder / "model.bin") in one_line(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("replacement", [as_fifo, as_socket, as_endless_device, as_sparse_file])
def test_a_manifest_that_is_no_file_neither_hangs_nor_passes(
    replacement: Callable[[Path], object], folder: Path
) -> None:
    (folder / MANIFEST).unlink()
    replacement(folder / MANIFEST)
    with pytest.raises(RequestError) as caught:
        read_manifest(folder)
    assert str(folder / MANIFEST) in one_line(caught.value)


def test_a_file_in_a_folder_that_is_a_link_to_elsewhere_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "golden").rename(tmp_path / "elsewhere")
    (folder / "golden").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WorkError, match="leads out of"):
        verify_files(folder)


def test_a_folder_that_is_reached_by_a_link_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    (folder / "model.bin").rename(folder / "golden/model.bin")
    (folder / "model.bin").symlink_to("golden/model.bin")
    assert set(verify_files(tmp_path / "link")["files"]) == {"model.bin", "golden/tensors.npy"}


def test_verified_bytes_are_those_of_the_file_and_of_no_other(folder: Path) -> None:
    assert read_verified(folder, "golden/tensors.npy") == b"tensors"
    (folder / "golden/tensors.npy").write_bytes(b"tonsers")
    with pytest.raises(WorkError, match="has SHA-256"):
        read_verified(folder, "golden/tensors.npy")
    with pytest.raises(WorkError, match="not listed"):
        read_verified(folder, "golden/other.npy")


@pytest.mark.parametrize("name", ["added.onnx.data", "golden/added.png", ".hidden"])
def test_files_that_are_not_listed_are_named(name: str, folder: Path) -> None:
    manifest = read_manifest(folder)
    require_only_listed(folder, manifest)
    (folder / name).write_bytes(b"by somebody")
    with pytest.raises(WorkError) as caught:
        require_only_listed(folder, manifest)
    assert name in one_line(caught.value)


@pytest.mark.parametrize("make", [as_fifo, lambda path: path.symlink_to("/etc")], ids=["FIFO", "folder"])
def test_links_and_special_files_that_are_not_listed_are_named(
    make: Callable[[Path], object], folder: Path
) -> None:
    make(folder / "golden/extra")
    with pytest.raises(WorkError, match="golden/extra"):
        require_only_listed(folder, read_manifest(folder))
