"""Files and folders that several processes create and change, on this machine and in S3."""

import json
import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from pixelmill.pipeline.artifacts import write_text
from pixelmill.pipeline.storage import (
    Location,
    absolute,
    change_file,
    create_file,
    is_remote,
    local_folder,
    locked_folder,
    parse_location,
    publish_copy,
    publish_folder,
    read_content,
    require_writable,
    stamp_of,
)
from tests.s3 import S3Server, s3_server

SPAWN = multiprocessing.get_context("spawn")
ROUNDS = 6


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["local", "s3", "s3 that fails"])
def place(
    request: pytest.FixtureRequest, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Location]:
    if request.param == "local":
        yield tmp_path / "some store"
        return
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with s3.bucket("bucket"):
        s3.failing = 0.1 if request.param == "s3 that fails" else 0.0
        yield parse_location("s3://bucket/some store")


def add_line(line: str, content: bytes | None) -> bytes:
    return (content or b"") + line.encode()


def write_many(barrier: Barrier, place: str, own: str, answer: Path) -> None:
    """Add lines to one file, and try to create others, as another process does at the same time."""
    folder = parse_location(place)
    barrier.wait()
    created = []
    for number in range(ROUNDS):
        change_file(folder / "ledger", partial(add_line, f"{own} {number}\n"))
        if create_file(folder / f"segment {number}", f"{own} {number}".encode()):
            created.append(number)
    answer.write_text(json.dumps(created))


def test_two_processes_lose_no_change_and_create_each_file_once(place: Location, tmp_path: Path) -> None:
    barrier, owners = SPAWN.Barrier(2), ("first", "second")
    answers = {own: tmp_path / f"{own}.json" for own in owners}
    processes = [
        SPAWN.Process(target=write_many, args=(barrier, absolute(place), own, answers[own])) for own in owners
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    lines = read_content(place / "ledger").decode().splitlines()
    for own in owners:
        # A change is made again if its response was lost and another process changed the file meanwhile.
        found = list(dict.fromkeys(line for line in lines if line.startswith(own)))
        assert found == [f"{own} {n}" for n in range(ROUNDS)]
    if not is_remote(place):
        assert len(lines) == 2 * ROUNDS
    created = {own: json.loads(answers[own].read_text()) for own in owners}
    assert sorted(created["first"] + created["second"]) == list(range(ROUNDS))
    for own, numbers in created.items():
        assert all(read_content(place / f"segment {n}").decode() == f"{own} {n}" for n in numbers)


def test_what_is_there_is_not_created_again(place: Location) -> None:
    assert create_file(place / "a.json", b"1")
    assert not create_file(place / "a.json", b"2")
    change_file(place / "a.json", lambda content: None)
    assert read_content(place / "a.json") == b"1"


def test_a_change_that_fails_leaves_the_file(place: Location) -> None:
    assert create_file(place / "a.json", b"1")
    with pytest.raises(KeyError):
        change_file(place / "a.json", lambda content: {b"": b"2"}[content or b""])
    change_file(place / "a.json", partial(add_line, "2"))
    assert read_content(place / "a.json") == b"12"


def test_a_stamp_tells_that_a_file_was_replaced(place: Location) -> None:
    assert stamp_of(place / "a.json") is None
    write_text(place / "a.json", "1")
    first = stamp_of(place / "a.json")
    assert stamp_of(place / "a.json") == first
    write_text(place / "a.json", "2")
    assert stamp_of(place / "a.json") not in (None, first)


def test_a_folder_is_published_once(place: Location, tmp_path: Path) -> None:
    for content in ("first", "second"):
        source = tmp_path / content
        (source / "in").mkdir(parents=True)
        for name in ("in/a", "last"):
            (source / name).write_text(content)
        if content == "first":
            write_text(place / "beside", "")
            assert publish_folder(source, place / "folder", ["in/a", "last"])
        elif isinstance(place, Path):
            with pytest.raises(OSError, match="not empty"):
                publish_folder(source, place / "folder", ["in/a", "last"])
        else:
            assert not publish_folder(source, place / "folder", ["in/a", "last"])
    assert {read_content(place / "folder" / name) for name in ("in/a", "last")} == {b"first"}


def test_a_copy_of_a_folder_is_published_once_and_the_folder_stays(place: Location, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "in").mkdir(parents=True)
    for name in ("in/a", "last", "unnamed"):
        (source / name).write_text(name)
    assert publish_copy(source, place / "folder", ["in/a", "last"])
    assert [read_content(place / "folder" / name) for name in ("in/a", "last")] == [b"in/a", b"last"]
    assert not (place / "folder/unnamed").exists()
    assert (source / "last").read_text() == "last"
    if isinstance(place, Path):
        with pytest.raises(OSError, match="not empty"):
            publish_copy(source, place / "folder", ["in/a", "last"])
        assert [path.name for path in place.iterdir()] == ["folder"]
    else:
        assert not publish_copy(source, place / "folder", ["in/a", "last"])


def test_a_folder_is_locked_where_there_are_locks_and_leaves_nothing_behind(place: Location) -> None:
    work = place / "table/work"
    with locked_folder(work, "lock"), ExitStack() as second:
        refused = pytest.raises(TimeoutError) if isinstance(place, Path) else nullcontext()
        with refused:
            second.enter_context(locked_folder(work, "lock"))
    assert not place.exists()
    with locked_folder(work, "lock"):
        write_text(work / "kept", "1")
    assert read_content(work / "kept") == b"1"


def test_an_empty_folder_on_this_machine_stands_for_any_folder(place: Location) -> None:
    for _ in range(2):
        with local_folder(place / "marks") as folder:
            assert list(folder.iterdir()) == []
            (folder / "in").mkdir()
            assert isinstance(folder, Path)
            assert (folder == place / "marks") is isinstance(place, Path)


def test_whether_files_can_be_written_is_known_before_the_work(place: Location, tmp_path: Path) -> None:
    require_writable(place / "new/folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        require_writable(tmp_path / "file/folder")
    assert not place.exists()
