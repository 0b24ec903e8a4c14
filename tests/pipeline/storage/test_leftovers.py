"""Files left by killed processes are removed, and nothing else."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pixelmill.pipeline.artifacts import (
    publishing,
    remove_leftovers,
    replacing,
    scratch_folder,
    temporary_sibling,
)
from pixelmill.pipeline.storage.temporaries import hold, temporary_folder

ROOT = Path(__file__).parents[3]
OWNER = """
import pathlib, sys
from pixelmill.pipeline.artifacts import publishing, replacing, scratch_folder
place = pathlib.Path(sys.argv[1])
with (
    replacing(place / "file.txt") as file,
    publishing(place / "bundle", {}) as folder,
    scratch_folder("proof", place) as scratch,
):
    file.write_text("half of it")
    (folder / "model.onnx").write_text("half of it")
    (scratch / "answers.npy").write_text("half of it")
    print("at work", flush=True)
    sys.stdin.read()
"""


@contextmanager
def owner_at_work(place: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that is in the middle of writing a file, a bundle and a scratch folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(place)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        try:
            yield process
        finally:
            process.kill()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_a_living_process_writes_stays_and_what_a_killed_one_left_goes(tmp_path: Path) -> None:
    with owner_at_work(tmp_path) as process:
        before = names(tmp_path)
        assert len(before) == 3
        assert all(name.endswith(".pixelmill-tmp") for name in before)
        assert remove_leftovers(tmp_path) == []
        assert names(tmp_path) == before
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert {path.name for path in remove_leftovers(tmp_path)} == before
    assert names(tmp_path) == set()


def test_a_block_that_raises_leaves_nothing_of_its_own(tmp_path: Path) -> None:
    with owner_at_work(tmp_path) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0
    assert names(tmp_path) == {"file.txt", "bundle"}


def test_only_leftovers_of_one_name_go_where_a_name_is_given(tmp_path: Path) -> None:
    for name in ("a", "b"):
        temporary_sibling(tmp_path / name).write_text("left")
    remove_leftovers(tmp_path, "a")
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".b.")


def test_publishing_removes_what_a_killed_run_left_of_the_same_artifact(tmp_path: Path) -> None:
    stale = temporary_sibling(tmp_path / "1")
    stale.mkdir()
    (stale / "model.onnx").write_text("half")
    other = temporary_sibling(tmp_path / "2")
    other.mkdir()
    with publishing(tmp_path / "1", {}):
        pass
    assert names(tmp_path) == {"1", other.name}


@pytest.mark.parametrize(
    "name",
    [
        ".thesis.tmp",
        ".thesis.0a1b2c3d.tmp",
        "thesis.0a1b2c3d.pixelmill-tmp",
        ".thesis.0a1b2c3.pixelmill-tmp",
        ".thesis.0a1b2c3g.pixelmill-tmp",
        ".0a1b2c3d.pixelmill-tmp",
        ".thesis.0a1b2c3d.pixelmill-tmp~",
    ],
)
def test_a_file_without_our_mark_stays(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("a year of work")
    assert remove_leftovers(tmp_path) == []
    assert names(tmp_path) == {name}


def test_links_and_special_files_of_such_a_name_stay_and_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, place = tmp_path / "kept", tmp_path / "place"
    kept.mkdir()
    place.mkdir()
    (kept / "thesis.txt").write_text("a year of work")
    temporary_sibling(place / "link").symlink_to(kept)
    os.mkfifo(temporary_sibling(place / "fifo"))
    # The whole path may be longer than the address of a socket.
    monkeypatch.chdir(place)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(temporary_sibling(place / "socket").name)
        before = names(place)
        assert remove_leftovers(place) == []
    assert names(place) == before
    assert (kept / "thesis.txt").read_text() == "a year of work"


def test_a_link_inside_a_leftover_is_removed_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "thesis.txt").write_text("a year of work")
    left = temporary_sibling(tmp_path / "1")
    left.mkdir()
    (left / "link").symlink_to(tmp_path / "kept")
    assert remove_leftovers(tmp_path) == [left]
    assert (tmp_path / "kept" / "thesis.txt").read_text() == "a year of work"


def test_nothing_is_found_where_there_is_no_folder(tmp_path: Path) -> None:
    assert remove_leftovers(tmp_path / "nowhere") == []


def test_a_scratch_folder_is_empty_ours_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    temporary_sibling(tmp_path / "proof").write_text("left by a killed process")
    with scratch_folder("proof", tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
        assert list(folder.iterdir()) == []
        with scratch_folder("proof", tmp_path) as second:
            assert second != folder
            assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_is_held_cannot_be_held_twice_and_what_is_renamed_stays_held(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "a") as folder:
        assert hold(folder) is None
        folder.rename(tmp_path / "b")
        assert hold(tmp_path / "b") is None
        assert hold(folder) is None
    assert hold(tmp_path / "b") is not None


def test_a_replaced_file_has_the_permissions_that_the_user_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "file.txt") as temporary:
            temporary.write_text("text")
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o640
