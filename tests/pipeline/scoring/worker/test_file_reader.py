"""Reading listed files: complete and unchanged, or the reason why not, independent of other files."""

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import FailureCode, ImageFailure
from pixelmill.pipeline.scoring.listing import ListedImage, list_images
from pixelmill.pipeline.scoring.worker.file_reader import CRASHES_WORKER, read_again, reader_of
from pixelmill.pipeline.storage import Location, parse_location

pytestmark = pytest.mark.filterwarnings("ignore:UPath 'unsteady' filesystem:UserWarning")
NEIGHBOURS = {"a.png": b"before", "z.png": b"after"}


def read(folder: Location, images: list[ListedImage]) -> dict[str, bytes | FailureCode]:
    """The bytes of each image, or the code of the failure."""
    contents = reader_of(folder)(images)
    assert len(contents) == len(images)
    return {
        image.path: content.code if isinstance(content, ImageFailure) else content
        for image, content in zip(images, contents, strict=True)
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {**NEIGHBOURS, "m.png": b"12345"}.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_all_bytes_are_returned_in_the_requested_order(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("images")
    for number, content in enumerate(contents):
        (folder / f"{number}.png").write_bytes(content)
    images = list(list_images(folder))[::-1]
    assert reader_of(folder)(images) == contents[::-1]


def test_a_file_of_many_megabytes(tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 40
    (tmp_path / "large.png").write_bytes(content)
    assert read(tmp_path, list(list_images(tmp_path))) == {"large.png": content}


def test_names_that_are_not_text(tmp_path: Path) -> None:
    names = [b"\xff\xfe.png", b"line\nbreak.png", b"%41.png", b"A.png", "é [1]*?.png".encode()]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(name)
    images = list(list_images(tmp_path))
    assert set(read(tmp_path, images).values()) == set(names)
    assert {read_again(tmp_path, image.path) for image in images} == set(names)


def remove(path: Path) -> None:
    path.unlink()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def make_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone")


def make_looping_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def make_folder_a_file(path: Path) -> None:
    path.unlink()
    path.symlink_to("a.png/m.png")


def grow(path: Path) -> None:
    keep_time(path, b"123456")


def shrink(path: Path) -> None:
    keep_time(path, b"1234")


def empty(path: Path) -> None:
    keep_time(path, b"")


def keep_time(path: Path, content: bytes) -> None:
    before = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(before, before))


def touch(path: Path) -> None:
    after = path.stat().st_mtime_ns + 1
    os.utime(path, ns=(after, after))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (remove, FailureCode.UNREADABLE),
        (make_dangling_link, FailureCode.UNREADABLE),
        (make_looping_link, FailureCode.UNREADABLE),
        (make_folder_a_file, FailureCode.UNREADABLE),
        (make_pipe, FailureCode.NOT_A_FILE),
        (make_folder, FailureCode.NOT_A_FILE),
        (make_device, FailureCode.NOT_A_FILE),
        (grow, FailureCode.CHANGED),
        (shrink, FailureCode.CHANGED),
        (empty, FailureCode.CHANGED),
        (touch, FailureCode.CHANGED),
    ],
)
@pytest.mark.timeout(60)
def test_a_file_that_changed_since_it_was_listed(
    change: Callable[[Path], None], code: FailureCode, folder: Path
) -> None:
    images = list(list_images(folder))
    assert read(folder, images) == {**NEIGHBOURS, "m.png": b"12345"}
    change(folder / "m.png")
    assert read(folder, images) == {**NEIGHBOURS, "m.png": code}


def test_a_pipe_with_a_writer_is_not_read(folder: Path) -> None:
    images = list(list_images(folder))
    make_pipe(folder / "m.png")
    writer = os.open(folder / "m.png", os.O_RDWR)
    try:
        os.write(writer, b"12345")
        assert read(folder, images)["m.png"] is FailureCode.NOT_A_FILE
        assert os.read(writer, 9) == b"12345"
    finally:
        os.close(writer)


def test_a_socket_instead_of_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = list(list_images(folder))
    (folder / "m.png").unlink()
    monkeypatch.chdir(folder)  # The path of a socket may have at most 107 bytes.
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("m.png")
        assert read(folder, images) == {**NEIGHBOURS, "m.png": FailureCode.UNREADABLE}


def test_an_unreadable_file(folder: Path) -> None:
    (folder / "m.png").chmod(0)
    if os.access(folder / "m.png", os.R_OK):
        pytest.skip("this user reads every file")
    assert read(folder, list(list_images(folder)))["m.png"] is FailureCode.UNREADABLE


def test_a_file_with_a_read_error() -> None:
    # Its first page is not mapped, so reading it fails with EIO for every user.
    memory = Path("/proc/self/mem")
    facts = memory.stat()
    image = ListedImage("mem", facts.st_size, facts.st_mtime_ns, facts.st_ino)
    (content,) = reader_of(memory.parent)([image])
    assert isinstance(content, ImageFailure)
    assert str(content) == "unreadable: Input/output error"


def test_a_file_that_is_longer_than_its_size() -> None:
    folder = Path("/proc/self")
    facts = (folder / "status").stat()
    image = ListedImage("status", facts.st_size, facts.st_mtime_ns, facts.st_ino)
    assert read(folder, [image]) == {"status": FailureCode.CHANGED}


def test_a_file_too_large_is_not_read(folder: Path) -> None:
    os.truncate(folder / "m.png", (1 << 30) + 1)
    assert read(folder, list(list_images(folder))) == {**NEIGHBOURS, "m.png": FailureCode.TOO_LARGE}


def test_an_entry_listed_with_a_problem_is_not_opened(folder: Path) -> None:
    make_pipe(folder / "m.png")
    images = list(list_images(folder))
    # Even if it is a valid file by now.
    (folder / "m.png").unlink()
    (folder / "m.png").write_bytes(b"12345")
    (failure,) = reader_of(folder)([image for image in images if image.path == "m.png"])
    assert isinstance(failure, ImageFailure)
    assert str(failure) == "not_a_file: a pipe"
    assert read(folder, images) == {**NEIGHBOURS, "m.png": FailureCode.NOT_A_FILE}


def test_a_file_that_crashes_workers_is_not_read(folder: Path) -> None:
    images = [
        image._replace(problem=CRASHES_WORKER) if image.path == "m.png" else image
        for image in list_images(folder)
    ]
    assert read(folder, images) == {**NEIGHBOURS, "m.png": FailureCode.WORKER_DIED}


def test_a_file_with_an_extreme_modification_time_is_read(folder: Path) -> None:
    for year_2300, before_1970 in [(10**19, -(10**17))]:
        os.utime(folder / "m.png", ns=(year_2300, year_2300))
        os.utime(folder / "a.png", ns=(before_1970, before_1970))
    assert read(folder, list(list_images(folder))) == {**NEIGHBOURS, "m.png": b"12345"}


def test_reading_does_not_change_the_access_time(folder: Path) -> None:
    file = folder / "m.png"
    # If a file has not been read since it was written, the system records the next access.
    os.utime(file, ns=(10**18, file.stat().st_mtime_ns))
    assert read(folder, list(list_images(folder)))["m.png"] == b"12345"
    assert file.stat().st_atime_ns == 10**18


def test_a_removed_folder_is_an_error_of_the_run_not_of_its_images(folder: Path) -> None:
    images = list(list_images(folder))
    folder.rename(folder.with_name("moved"))
    with pytest.raises(WorkError, match="is no longer readable"):
        reader_of(folder)(images)


@pytest.mark.parametrize("left", [0, 5])
def test_running_out_of_descriptors_is_an_error_of_the_machine_not_of_the_image(
    folder: Path, left: int
) -> None:
    import resource

    for number in range(10):
        (folder / f"{number}.png").write_bytes(b"12345")
    images = list(list_images(folder))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            held.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(1000))
        for _ in range(left):
            os.close(held.pop())
        with pytest.raises(OSError, match="Too many open files"):
            reader_of(folder)(images)
        # The files opened until then are closed.
        held.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(left))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


def test_reading_closes_all_files(folder: Path) -> None:
    images = list(list_images(folder))
    make_folder(folder / "m.png")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        read(folder, images)
    assert len(os.listdir("/proc/self/fd")) == before


class Unsteady(MemoryFileSystem):  # type: ignore[misc]
    """A file system in memory that fails a given number of times before it responds."""

    protocol = "unsteady"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    failures: ClassVar[dict[str, list[Exception]]] = {}
    requested: ClassVar[Counter[str]] = Counter()
    lock: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return super()._strip_protocol(path.removeprefix("unsteady://"))

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> bytes:
        name = path.rpartition("/")[2]
        with self.lock:
            self.requested[name] += 1
            due = self.failures.get(name)
            if due:
                raise due.pop(0)
        content: bytes = super().cat_file(path, *arguments, **options)
        return content


@pytest.fixture(params=["memory", "unsteady"])
def remote(request: pytest.FixtureRequest) -> Iterator[Location]:
    kind: str = request.param
    fsspec.register_implementation("unsteady", Unsteady, clobber=True)
    Unsteady.failures.clear()
    Unsteady.requested.clear()
    system = fsspec.filesystem(kind)
    for name, content in {**NEIGHBOURS, "m.png": b"12345"}.items():
        system.pipe_file(f"/test-reading/{name}", content)
    yield parse_location(f"{kind}://test-reading")
    for name in list(system.store):
        if name.startswith("/test-reading/"):
            del system.store[name]


def put(folder: Location, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


def test_a_remote_file_has_the_same_bytes(remote: Location) -> None:
    put(remote, "empty.png", b"")
    images = list(list_images(remote))
    assert read(remote, images) == {**NEIGHBOURS, "m.png": b"12345", "empty.png": b""}
    assert read(remote, images[2:3]) == {"m.png": b"12345"}
    assert read(remote, []) == {}
    assert read_again(remote, "m.png") == b"12345"


def test_a_remote_name_is_not_a_pattern(remote: Location) -> None:
    names = ["m[1].png", "m1.png", "m*.png", "?.png", "%41.png", "sub/é.png"]
    for name in names:
        put(remote, name, name.encode())
    images = list(list_images(remote))
    assert set(read(remote, images).values()) == {*map(str.encode, names), *NEIGHBOURS.values(), b"12345"}
    odd = [image for image in images if image.path in ("m*.png", "?.png")]
    Unsteady.requested.clear()
    assert read(remote, odd) == {"m*.png": b"m*.png", "?.png": b"?.png"}
    # No other file was fetched for its pattern.
    assert set(Unsteady.requested) <= {"m*.png", "?.png"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, FailureCode.UNREADABLE),
        (b"123456", FailureCode.CHANGED),
        (b"1234", FailureCode.CHANGED),
        (b"", FailureCode.CHANGED),
        (bytes(10**6), FailureCode.CHANGED),
    ],
)
def test_a_remote_file_that_changed(content: bytes | None, code: FailureCode, remote: Location) -> None:
    images = list(list_images(remote))
    if content is None:
        (remote / "m.png").unlink()
    else:
        put(remote, "m.png", content)
    assert read(remote, images) == {**NEIGHBOURS, "m.png": code}


def test_an_empty_remote_file_that_has_grown(remote: Location) -> None:
    put(remote, "m.png", b"")
    images = list(list_images(remote))
    put(remote, "m.png", b"1")
    assert read(remote, images) == {**NEIGHBOURS, "m.png": FailureCode.CHANGED}


def test_a_remote_file_too_large_is_not_fetched(remote: Location) -> None:
    images = [
        image._replace(size=(1 << 30) + 1) if image.path == "m.png" else image
        for image in list_images(remote)
    ]
    assert read(remote, images) == {**NEIGHBOURS, "m.png": FailureCode.TOO_LARGE}
    assert Unsteady.requested["m.png"] == 0


@pytest.mark.parametrize("remote", ["unsteady"], indirect=True)
def test_a_remote_file_is_requested_until_it_arrives(remote: Location) -> None:
    images = list(list_images(remote))
    Unsteady.failures["m.png"] = [OSError("slow down"), TimeoutError("too late"), ConnectionResetError()]
    assert read(remote, images) == {**NEIGHBOURS, "m.png": b"12345"}
    assert Unsteady.requested == {"a.png": 1, "m.png": 4, "z.png": 1}


@pytest.mark.parametrize("remote", ["unsteady"], indirect=True)
def test_a_remote_file_that_never_arrives_is_a_row_with_the_last_reason(remote: Location) -> None:
    images = list(list_images(remote))
    Unsteady.failures["m.png"] = [OSError(f"try {number}") for number in range(1000)]
    failure = reader_of(remote)(images)[1]
    assert str(failure) == f"unreadable: try {Unsteady.requested['m.png'] - 1}"
    assert 1 < Unsteady.requested["m.png"] < 20
    assert read(remote, images) == {**NEIGHBOURS, "m.png": FailureCode.UNREADABLE}


@pytest.mark.parametrize("remote", ["unsteady"], indirect=True)
def test_a_store_that_stops_responding_ends_the_run(remote: Location) -> None:
    images = list(list_images(remote))
    for name in (*NEIGHBOURS, "m.png"):
        Unsteady.failures[name] = [ConnectionRefusedError("no store") for _ in range(1000)]
    with pytest.raises(WorkError, match="no store"):
        reader_of(remote)(images)


@pytest.mark.parametrize("remote", ["unsteady"], indirect=True)
@pytest.mark.parametrize("error", [FileNotFoundError("gone"), PermissionError("not for you")])
def test_permanent_errors_are_not_retried(error: OSError, remote: Location) -> None:
    images = list(list_images(remote))
    Unsteady.failures["m.png"] = [error]
    assert read(remote, images) == {**NEIGHBOURS, "m.png": FailureCode.UNREADABLE}
    assert Unsteady.requested["m.png"] == 1
