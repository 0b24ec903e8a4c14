"""Atomic writing: when a block raises, a process is killed, or the disk is full."""

import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import (
    MANIFEST,
    canonical_json,
    describe_file,
    opened_for_reading,
    provenance,
    publishing,
    read_json,
    read_manifest,
    read_verified,
    remove_file,
    remove_folder,
    replacing,
    sha256_of,
    verify_files,
    write_array,
    write_json,
    write_text,
)
from pixelmill.pipeline.errors import PixelmillError, RequestError, WorkError
from pixelmill.pipeline.storage import Location, children, link_or_copy, parse_location, read_content
from tests.s3 import S3Server, s3_server

ROOT = Path(__file__).parents[3]
OLD, NEW = "old text\n", "new text\n" * 20_000
FILES = {"model.bin": b"\0\1\2" * 1000, "labels.json": b'["a"]', "report/index.html": b"<p>\xc3\xa9</p>"}


class Interrupted(BaseException):
    """Ends a block as Ctrl-C does."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def publish(destination: Path) -> None:
    with publishing(destination, {"kind": "test", "name": "a name"}) as staging:
        fill(staging)


def in_a_fresh_process(function: Callable[[Path], None], folder: Path, *prefix: str) -> str:
    """Run one of this module's functions in a process of its own and return what it printed."""
    call = (
        f"import pathlib, sys; from {__name__} import {function.__name__} as f; f(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [*prefix, sys.executable, "-c", call, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_replacing_shows_the_new_file_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, OLD)
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text(NEW)
        assert path.read_text() == OLD
    assert path.read_text() == NEW
    assert names(path.parent) == ["file.txt"]


def replace_and_raise(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(NEW)
        raise Interrupted


def test_replacing_leaves_the_old_file_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text(OLD)
    with pytest.raises(Interrupted):
        replace_and_raise(path)
    assert path.read_text() == OLD
    assert names(tmp_path) == ["file.txt"]


def test_replacing_leaves_no_file_when_the_block_raises_and_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        replace_and_raise(tmp_path / "file.txt")
    assert names(tmp_path) == []


def test_a_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, OLD)
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "a name that is no text: \ud800")
    assert path.read_text() == OLD
    assert names(tmp_path) == ["file.txt"]


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"né": [1, None, "日本"]})
    with pytest.raises(TypeError):
        write_json(path, {"a set": {1, 2}})
    assert read_json(path) == {"né": [1, None, "日本"]}
    assert names(tmp_path) == ["file.json"]


def test_an_array_reads_back_as_it_was(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_array(tmp_path / "array.npy", array)
    read = np.load(tmp_path / "array.npy", allow_pickle=False)
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)
    assert names(tmp_path) == ["array.npy"]


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff", b"[1, 2"])
def test_a_file_that_is_no_json_is_told_by_name(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RequestError, match=r"file\.json cannot be read"):
        read_json(path)


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == canonical_json({"a": [1.5, "é"], "b": 1})
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"\\u00e9"],"b":1}'


def test_nothing_is_to_be_seen_before_the_end(tmp_path: Path) -> None:
    destination = tmp_path / "models" / "1"
    with publishing(destination, {}) as staging:
        fill(staging)
        assert not destination.exists()
        assert not (staging / MANIFEST).exists()
        assert all(name.startswith(".") for name in names(destination.parent))
    assert names(destination.parent) == ["1"]
    assert names(destination) == ["labels.json", MANIFEST, "model.bin", "report"]


def test_the_manifest_lists_every_file_with_its_hash_and_size(tmp_path: Path) -> None:
    facts: dict[str, object] = {"kind": "test"}
    with publishing(tmp_path / "1", facts) as staging:
        fill(staging)
        facts["known only now"] = 7
    manifest = read_manifest(tmp_path / "1")
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in FILES.items()
    }
    assert manifest["kind"] == "test"
    assert manifest["known only now"] == 7
    assert manifest["packages"]["numpy"]
    assert verify_files(tmp_path / "1") == manifest


def test_a_file_below_that_is_called_as_the_manifest_is_listed_too(tmp_path: Path) -> None:
    with publishing(tmp_path / "1", {}) as staging:
        (staging / "extension").mkdir()
        (staging / "extension" / MANIFEST).write_text("{}")
    assert list(read_manifest(tmp_path / "1")["files"]) == [f"extension/{MANIFEST}"]


def publish_and_raise(destination: Path) -> None:
    with publishing(destination, {}) as staging:
        fill(staging)
        raise Interrupted


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        publish_and_raise(tmp_path / "1")
    assert names(tmp_path) == []


def test_facts_that_are_no_json_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError), publishing(tmp_path / "1", {"a set": {1}}) as staging:
        fill(staging)
    assert names(tmp_path) == []


def test_a_finished_artifact_is_not_replaced(tmp_path: Path) -> None:
    publish(tmp_path / "1")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with (
        pytest.raises(RequestError, match="is a finished artifact"),
        publishing(tmp_path / "1", {}) as staging,
    ):
        (staging / "model.bin").write_bytes(b"another")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def publish_while_another_does(destination: Path) -> None:
    with publishing(destination, {"name": "the slow one"}) as staging:
        publish(destination)
        fill(staging)


def test_of_two_that_publish_at_once_the_first_to_finish_wins(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is a finished artifact"):
        publish_while_another_does(tmp_path / "1")
    assert verify_files(tmp_path / "1")["name"] == "a name"
    assert names(tmp_path) == ["1"]


@pytest.mark.parametrize("leftover", [None, "model.bin", "half-written.tmp"])
def test_an_empty_or_unfinished_folder_is_replaced(leftover: str | None, tmp_path: Path) -> None:
    destination = tmp_path / "1"
    destination.mkdir()
    if leftover is not None:
        (destination / leftover).write_bytes(b"from an interrupted run")
    publish(destination)
    assert set(verify_files(destination)["files"]) == set(FILES)
    assert names(destination) == ["labels.json", MANIFEST, "model.bin", "report"]
    assert names(tmp_path) == ["1"]


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [change_a_byte, Path.unlink, lambda path: os.truncate(path, 1)],
    ids=["changed", "missing", "cut short"],
)
@pytest.mark.parametrize("name", sorted(FILES))
def test_a_damaged_file_is_found(name: str, damage: Callable[[Path], object], tmp_path: Path) -> None:
    folder = tmp_path / "1"
    publish(folder)
    verify_files(folder)
    damage(folder / name)
    with pytest.raises(WorkError, match=name):
        verify_files(folder)
    with pytest.raises(WorkError, match=name):
        verify_files(folder, (name,))
    verify_files(folder, tuple(FILES.keys() - {name}))


def test_a_file_that_the_manifest_does_not_list_is_not_vouched_for(tmp_path: Path) -> None:
    publish(tmp_path / "1")
    (tmp_path / "1" / "added.bin").write_bytes(b"by somebody")
    with pytest.raises(WorkError, match=r"added\.bin"):
        verify_files(tmp_path / "1", ("added.bin",))


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    fill(tmp_path)
    with pytest.raises(RequestError, match=f"has no {MANIFEST}"):
        verify_files(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[]", '{"name": "A web page", "icons": []}', "{"])
def test_a_manifest_of_something_else_is_told_by_name(content: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(PixelmillError, match=MANIFEST):
        verify_files(tmp_path)


def kill_at_every_step(folder: Path) -> None:
    """Publish and replace again and again, killed one step later every time, until a round is done."""
    provenance()  # Kept for the process: what remains are the writer's own steps.
    for step in itertools.count():
        round_folder = folder / f"{step:04d}"
        round_folder.mkdir()
        (round_folder / "file.txt").write_text(OLD)
        writer = os.fork()
        if writer == 0:
            left = step

            def die_here(event: str, arguments: Any) -> None:
                nonlocal left
                if event == "open" or event.startswith(("os.", "shutil.")):
                    left -= 1
                    if left < 0:
                        signal.raise_signal(signal.SIGKILL)

            sys.addaudithook(die_here)
            write_text(round_folder / "file.txt", NEW)
            publish(round_folder / "artifact")
            os._exit(0)
        _, status = os.waitpid(writer, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return
        assert os.WTERMSIG(status) == signal.SIGKILL


def test_a_writer_killed_at_any_step_leaves_all_or_nothing(tmp_path: Path) -> None:
    in_a_fresh_process(kill_at_every_step, tmp_path)
    rounds = sorted(tmp_path.iterdir())
    texts, artifacts = [], []
    for folder in rounds:
        texts.append((folder / "file.txt").read_text())
        artifacts.append((folder / "artifact").exists())
        if artifacts[-1]:
            assert set(verify_files(folder / "artifact")["files"]) == set(FILES)
    assert set(texts) == {OLD, NEW}
    assert texts == sorted(texts, reverse=True), "the old text, then from some step on the new one"
    assert artifacts == sorted(artifacts)
    assert artifacts.count(False) > len(FILES)
    assert artifacts[-1]


def test_what_a_killed_writer_left_is_no_hindrance(tmp_path: Path) -> None:
    in_a_fresh_process(kill_at_every_step, tmp_path)
    for folder in tmp_path.iterdir():
        if not (folder / "artifact").exists():
            publish(folder / "artifact")
        assert set(verify_files(folder / "artifact")["files"]) == set(FILES)


def fill_the_disk(folder: Path) -> None:
    """Replace a file and publish a folder on a small file system of our own, both too large for it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], check=True)
    path = folder / "file.txt"
    write_text(path, OLD)
    problems, named = [], ""
    try:
        write_text(path, NEW)
    except OSError as error:
        problems.append(error.errno)
        named = error.filename
    try:
        write_array(folder / "file.txt", np.zeros(50_000))
    except OSError as error:
        problems.append(error.errno)
    try:
        with publishing(folder / "artifact", {}) as staging:
            (staging / "model.bin").write_bytes(bytes(200_000))
    except OSError as error:
        problems.append(error.errno)
    print(
        json.dumps({"problems": problems, "named": named, "text": path.read_text(), "names": names(folder)})
    )


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    own_mounts = ("unshare", "--user", "--map-root-user", "--mount")
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here, so no small file system")
    probe = subprocess.run(
        [*own_mounts, "mount", "-t", "tmpfs", "none", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode != 0:
        pytest.skip(f"unshare is not permitted here: {probe.stderr.strip()}")
    answer = json.loads(in_a_fresh_process(fill_the_disk, tmp_path, *own_mounts))
    assert answer == {
        "problems": [errno.ENOSPC] * 3,
        "named": str(tmp_path / "file.txt"),
        "text": OLD,
        "names": ["file.txt"],
    }


def test_sha256_of_a_known_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["local", "memory", "s3", "s3 that fails"])
def place(
    request: pytest.FixtureRequest, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Location]:
    """A folder to write to: here, or remote, and there also one where every request fails at first."""
    if request.param == "local":
        yield tmp_path / "odd [1] #*?"
    elif request.param == "memory":
        yield parse_location(f"memory://{tmp_path.name}/odd [1] #*")
    else:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        with s3.bucket("bucket"):
            s3.first_fails = request.param == "s3 that fails"
            yield parse_location("s3://bucket/odd [1] #*")


def written(folder: Location) -> set[str]:
    return {path.name for path in children(folder)} if folder.exists() else set()


def test_files_are_replaced_moved_and_removed_wherever_they_are(place: Location) -> None:
    write_text(place / "a", OLD)
    write_json(place / "b [2]*.json", {"key": 1})
    with suppress(Interrupted), replacing(place / "a") as temporary:
        temporary.write_text("half")
        raise Interrupted
    assert read_content(place / "a").decode() == OLD
    write_text(place / "a", NEW)
    assert read_content(place / "a").decode() == NEW
    facts = {"sha256": hashlib.sha256(NEW.encode()).hexdigest(), "size": len(NEW)}
    assert describe_file(place / "a") == facts
    write_json(place / MANIFEST, {"files": {"a": facts}})
    assert verify_files(place)["files"] == {"a": facts}
    assert read_verified(place, "a") == NEW.encode()
    write_text(place / "a", OLD * 20_000)
    with pytest.raises(WorkError, match="a has "):
        verify_files(place)
    remove_file(place / "a")
    with pytest.raises(WorkError, match="a is missing"):
        read_verified(place, "a")
    remove_file(place / MANIFEST)
    link_or_copy(place / "b [2]*.json", place / "a")
    remove_file(place / "b [2]*.json")
    assert read_json(place / "a") == {"key": 1}
    assert written(place) == {"a"}
    with opened_for_reading(place / "a") as file:
        content = Path(file).read_bytes() if isinstance(file, str) else file.read()
    assert json.loads(content) == {"key": 1}
    for _ in range(2):
        remove_file(place / "a")
    assert written(place) == set()


def test_removing_a_folder_removes_nothing_beside_it(place: Location) -> None:
    for name in ("a/1", "a/b/2", "a/[3]*", "ab/4", "a.txt", "[a]"):
        write_text(place / name, OLD)
    for _ in range(2):
        remove_folder(place / "a")
    assert written(place) == {"ab", "a.txt", "[a]"}
    assert written(place / "ab") == {"4"}
