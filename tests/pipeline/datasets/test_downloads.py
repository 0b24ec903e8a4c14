"""Mirrors on loopback: resuming, moving on, verifying, caching."""

import gzip
import hashlib
import logging
import socket
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.datasets.mirrors import (
    Mirror,
    MirrorFailed,
    WantedFile,
    download,
    fetch_files,
    https_mirror,
)
from pixelmill.pipeline.errors import DownloadError, NoSourceError
from tests.servers import FileServer, serving

# Random bytes do not compress, so that a response can break off in the middle of the file.
CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(1000)
LIMIT = 1_000_000
WANTED = WantedFile("data", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def good_files() -> dict[str, bytes]:
    return {"data.gz": gzip.compress(CONTENT)}


def unreachable() -> Mirror:
    """An address nothing listens on: a port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return https_mirror(f"http://127.0.0.1:{free.getsockname()[1]}/")


def test_a_file_is_fetched_once_and_then_comes_from_the_cache(tmp_path: Path) -> None:
    with serving(FileServer(good_files())) as server:
        first, provenance = fetch_files([WANTED], [https_mirror(server.url)], tmp_path)
        assert provenance == server.url
        assert first["data"].read_bytes() == CONTENT
        assert first["data"].name == WANTED.sha256
        again, provenance = fetch_files([WANTED], [https_mirror(server.url)], tmp_path)
        assert (again, provenance) == (first, "the cache")
        assert len(server.requests) == 1


def test_a_broken_connection_is_resumed_where_it_broke(tmp_path: Path) -> None:
    with serving(FileServer(good_files(), break_after=[100_000, 50_000])) as server:
        assert gzip.decompress(download(f"{server.url}data.gz", tmp_path, LIMIT)) == CONTENT
    ranges = [wanted for _, wanted in server.requests]
    assert ranges[0] is None
    starts = [int(wanted[6:-1]) for wanted in ranges[1:] if wanted]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] <= 150_000


def test_a_later_run_resumes_what_an_earlier_one_left(tmp_path: Path) -> None:
    compressed = gzip.compress(CONTENT)
    with serving(FileServer(good_files())) as server:
        url = f"{server.url}data.gz"
        (tmp_path / hashlib.sha256(url.encode()).hexdigest()).write_bytes(compressed[:1234])
        assert download(url, tmp_path, LIMIT) == compressed
        assert server.requests == [("data.gz", "bytes=1234-")]
    assert not list(tmp_path.iterdir())


def test_a_server_without_ranges_is_read_from_the_start(tmp_path: Path) -> None:
    with serving(FileServer(good_files(), break_after=[9000], honours_ranges=False)) as server:
        assert gzip.decompress(download(f"{server.url}data.gz", tmp_path, LIMIT)) == CONTENT


def test_a_leftover_longer_than_the_file_is_thrown_away(tmp_path: Path) -> None:
    compressed = gzip.compress(CONTENT)
    with serving(FileServer(good_files())) as server:
        url = f"{server.url}data.gz"
        (tmp_path / hashlib.sha256(url.encode()).hexdigest()).write_bytes(compressed + b"more")
        assert download(url, tmp_path, LIMIT) == compressed


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "404"),
        ({"data.gz": b"<html>not here any more</html>"}, "not a complete gzip file"),
        ({"data.gz": gzip.compress(CONTENT)[:5000]}, "not a complete gzip file"),
        ({"data.gz": gzip.compress(OTHER)}, "SHA-256"),
    ],
    ids=["missing", "a page instead", "cut short", "other content"],
)
def test_a_bad_mirror_is_left_for_the_next_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, files: dict[str, bytes], reason: str
) -> None:
    with serving(FileServer(files)) as bad, serving(FileServer(good_files())) as good:
        mirrors = [unreachable(), https_mirror(bad.url), https_mirror(good.url)]
        with caplog.at_level(logging.WARNING, "pixelmill.pipeline"):
            paths, provenance = fetch_files([WANTED], mirrors, tmp_path)
    assert provenance == good.url
    assert paths["data"].read_bytes() == CONTENT
    assert [reason in record.getMessage() for record in caplog.records] == [False, True]
    assert "ConnectError" in caplog.records[0].getMessage()


def test_if_no_mirror_works_every_reason_is_named_and_nothing_is_cached(tmp_path: Path) -> None:
    bad = FileServer({"data.gz": gzip.compress(OTHER)})
    with serving(bad), pytest.raises(DownloadError) as caught:
        fetch_files([WANTED], [unreachable(), https_mirror(bad.url)], tmp_path)
    assert "ConnectError" in str(caught.value)
    assert "SHA-256" in str(caught.value)
    assert not (tmp_path / WANTED.sha256).exists()


def test_a_missing_mirror_is_an_error_only_if_a_file_is_not_cached(tmp_path: Path) -> None:
    with pytest.raises(NoSourceError, match="no source for data; expected at least one"):
        fetch_files([WANTED], [], tmp_path)
    (tmp_path / WANTED.sha256).write_bytes(CONTENT)
    assert fetch_files([WANTED], [], tmp_path)[1] == "the cache"


def test_files_from_one_mirror_are_not_requested_from_the_next(tmp_path: Path) -> None:
    other = WantedFile("other", hashlib.sha256(OTHER).hexdigest(), len(OTHER))
    first, second = FileServer(good_files()), FileServer({"other.gz": gzip.compress(OTHER)})
    with serving(first), serving(second):
        mirrors = [https_mirror(first.url), https_mirror(second.url)]
        paths, _ = fetch_files([WANTED, other], mirrors, tmp_path)
    assert paths["other"].read_bytes() == OTHER
    assert [name for name, _ in second.requests] == ["other.gz"]


@pytest.mark.parametrize(
    "base", ["http://127.0.0.1:no-port/", "nonsense", "ftp://127.0.0.1/", f"http://{'a' * 70}/"]
)
def test_an_address_that_makes_no_sense_is_a_mirror_that_failed(tmp_path: Path, base: str) -> None:
    with serving(FileServer(good_files())) as good:
        _, provenance = fetch_files([WANTED], [https_mirror(base), https_mirror(good.url)], tmp_path)
    assert provenance == good.url


def test_a_server_that_sends_without_end_is_cut_off(tmp_path: Path) -> None:
    with (
        serving(FileServer({"data.gz": CONTENT * 2})) as server,
        pytest.raises(MirrorFailed, match="more than"),
    ):
        download(f"{server.url}data.gz", tmp_path, len(CONTENT))


def test_a_damaged_cache_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / WANTED.sha256).write_bytes(CONTENT[:-1] + b"x")
    with serving(FileServer(good_files())) as server:
        paths, provenance = fetch_files([WANTED], [https_mirror(server.url)], tmp_path)
    assert provenance == server.url
    assert paths["data"].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (FileServer({"data": CONTENT}, status=500), "data responds with 500 Internal Server Error"),
        (FileServer({}), "data responds with 404 Not Found"),
        (
            FileServer({"data": b"<html>"}, content_type="text/html; charset=utf-8"),
            "data responds with a page of HTML instead of the file",
        ),
        (FileServer({"data": CONTENT * 4}), "data sends more than 1000000 bytes"),
    ],
    ids=["500", "404", "a page", "too much"],
)
def test_a_server_without_the_file_is_one_clear_line(server: FileServer, reason: str, tmp_path: Path) -> None:
    with serving(server), pytest.raises(MirrorFailed) as caught:
        download(f"{server.url}data", tmp_path, LIMIT)
    assert str(caught.value) == f"{server.url}{reason}"


def test_a_byte_at_a_time_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelmill.pipeline.datasets.mirrors._PACE_SECONDS", 0.5)
    with (
        serving(FileServer({"data": b""}, drips=True)) as server,
        pytest.raises(MirrorFailed, match=r"data sends \d+ bytes a second, below the minimum of 1024"),
    ):
        download(f"{server.url}data", tmp_path, LIMIT)
