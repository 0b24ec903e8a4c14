"""Listing a folder: every image once, in the order of the table, with any name."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import EXTENSIONS
from pixelmill.pipeline.scoring.listing import ListedImage, escape, holds_images, list_images, unescape
from pixelmill.pipeline.scoring.skipped import SkippedFiles, format_skipped
from pixelmill.pipeline.scoring.worker.file_reader import read_again, reader_of
from pixelmill.pipeline.storage import parse_location

# All bytes that a file name may contain on Linux, with the special ones more often.
NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & {0, ord("/")}) | st.text(
    st.sampled_from("%aF2=\n. é\u202e"), min_size=1, max_size=8
).map(os.fsencode)


def paths(folder: Path, *globs: str) -> list[str]:
    return [image.path for image in list_images(folder, globs)]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@given(NAMES)
def test_every_name_can_be_unescaped(name: bytes) -> None:
    text = escape(os.fsdecode(name))
    assert os.fsencode(unescape(text)) == name
    text.encode("utf-8")
    assert not any(ord(letter) < 32 for letter in text)


@given(NAMES, NAMES)
def test_escaping_is_injective(one: bytes, other: bytes) -> None:
    assert (escape(os.fsdecode(one)) == escape(os.fsdecode(other))) == (one == other)


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_each_name_in_a_path_is_escaped(names: list[bytes]) -> None:
    path = "/".join(escape(os.fsdecode(name)) for name in names)
    assert os.fsencode(unescape(path)).split(b"/") == names


@pytest.mark.parametrize("name", ["plain.png", "100%.png", "=1+1.png", "ä b.png", "50%zoom.png"])
def test_plain_text_is_not_escaped(name: str) -> None:
    assert escape(name) == name


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        (b"\xff.png", "%FF.png"),
        (b"%FF.png", "%25FF.png"),
        (b"a\nb.png", "a%0Ab.png"),
        (b"a\r\tb\x7f.png", "a%0D%09b%7F.png"),
        ("é\n.png".encode(), "é%0A.png"),
    ],
)
def test_other_names_are_escaped(name: bytes, escaped: str) -> None:
    assert escape(os.fsdecode(name)) == escaped


@settings(max_examples=60, deadline=None)
@given(
    st.sets(
        st.lists(NAMES.filter(lambda name: name[:1] != b"."), min_size=1, max_size=3).map(tuple), max_size=12
    )
)
def test_any_tree_is_listed_completely_and_sorted(
    tmp_path_factory: pytest.TempPathFactory, tree: set[tuple[bytes, ...]]
) -> None:
    root = os.fsencode(tmp_path_factory.mktemp("tree"))
    wanted = set()
    for *folders, name in tree:
        # Folders end in a letter that files do not, so that no name is both.
        folder = os.path.join(root, *(part + b"d" for part in folders))
        os.makedirs(folder, exist_ok=True)
        file = os.path.join(folder, name + b".png")
        with open(file, "wb"):
            wanted.add(os.path.relpath(file, root))
    listed = paths(Path(os.fsdecode(root)))
    assert listed == sorted(listed)
    assert len(listed) == len(set(listed))
    assert {os.fsencode(unescape(path)) for path in listed} == wanted
    assert paths(Path(os.fsdecode(root)), "*") == listed


def test_folders_sort_among_files_like_full_paths(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.png", "a-b.png", "a.png", "a/b/c.png", "ab.png", "B.png")
    assert paths(tmp_path) == sorted(paths(tmp_path))
    assert paths(tmp_path) == ["B.png", "a-b.png", "a.png", "a/b/c.png", "a/x.png", "ab.png"]


def test_only_visible_images_are_listed(tmp_path: Path) -> None:
    for extension in EXTENSIONS:
        touch(tmp_path, f"small{extension}", f"LARGE{extension.upper()}")
    touch(tmp_path, "notes.txt", "png", ".hidden.png", "archive.png.gz", ".cache/x.png")
    assert len(paths(tmp_path)) == 2 * len(EXTENSIONS)


@pytest.mark.parametrize(
    ("globs", "wanted"),
    [
        (["*.dat"], ["a.dat", "in/b.dat"]),
        (["*.dat", "c*"], ["a.dat", "c.png", "in/b.dat"]),
        (["*"], ["a.dat", "b.PNG", "c.png", "d.txt", "in/b.dat", "in/plain"]),
        (["plain"], ["in/plain"]),
        (["*.png"], ["c.png"]),
        (["[ab].*"], ["a.dat", "b.PNG", "in/b.dat"]),
        (["in*"], []),
        (["in/*"], []),
        ([".*"], []),
    ],
)
def test_patterns_replace_the_extensions(globs: list[str], wanted: list[str], tmp_path: Path) -> None:
    touch(tmp_path, "a.dat", "b.PNG", "c.png", "d.txt", "in/b.dat", "in/plain", ".e.dat", ".in/f.dat")
    assert paths(tmp_path, *globs) == wanted


def test_a_listed_image_has_the_facts_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    os.utime(tmp_path / "a.png", ns=(0, 1_700_000_000_123_456_789))
    inode = (tmp_path / "a.png").stat().st_ino
    assert list(list_images(tmp_path)) == [ListedImage("a.png", 5, 1_700_000_000_123_456_789, inode, None)]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/real.png").write_bytes(b"12345")
    (tmp_path / "folder/loop.png").symlink_to(tmp_path / "folder")
    (tmp_path / "folder/up").symlink_to(tmp_path)
    (tmp_path / "here").symlink_to(".")
    (tmp_path / "link.png").symlink_to(tmp_path / "folder/real.png")
    (tmp_path / "link to link.png").symlink_to("link.png")
    listed = {image.path: image for image in list_images(tmp_path)}
    assert set(listed) == {"folder/real.png", "link.png", "link to link.png"}
    assert {image[1:] for image in listed.values()} == {listed["folder/real.png"][1:]}
    assert listed["link.png"].size == 5


def test_entries_that_are_not_files_are_listed_with_their_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "one.png").symlink_to("other.png")
    (tmp_path / "other.png").symlink_to("one.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    (tmp_path / "below a file.png").symlink_to("null.png/x")
    monkeypatch.chdir(tmp_path)  # The path of a socket may have at most 107 bytes.
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket.png")
        listed = list(list_images(tmp_path))
    assert {image.path: image.problem for image in listed} == {
        "pipe.png": "a pipe",
        "nowhere.png": "a broken link",
        "self.png": "a link to itself",
        "one.png": "a link to itself",
        "other.png": "a link to itself",
        "null.png": "a device",
        "below a file.png": "Not a directory",
        "socket.png": "a socket",
    }
    assert {image[1:4] for image in listed} == {(0, 0, 0)}


@pytest.mark.parametrize("letter", ["a", "é", "\n"])
def test_long_names_and_long_paths(letter: str, tmp_path: Path) -> None:
    room = (255 - len(".png")) // len(letter.encode())
    name, folder = letter * room + ".png", letter * room
    inner = tmp_path / folder / folder
    inner.mkdir(parents=True)
    for place in (tmp_path, inner.parent, inner):
        (place / name).write_bytes(b"1")
    listed = list(list_images(tmp_path))
    assert {unescape(image.path) for image in listed} == {
        name,
        f"{folder}/{name}",
        f"{folder}/{folder}/{name}",
    }
    assert max(len(os.fsencode(unescape(image.path))) for image in listed) > 700
    assert {(image.size, image.problem) for image in listed} == {(1, None)}


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder for a tree that is too deep for Python to remove."""
    (tmp_path / "deep").mkdir()
    yield tmp_path / "deep"
    subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)


def test_a_tree_deeper_than_the_recursion_limit(deep: Path) -> None:
    depth = 1100
    make_deep(deep, depth, "d")
    assert paths(deep) == ["d/" * depth + "x.png"]


@pytest.mark.parametrize(("depth", "name"), [(20, "d" * 250), (2100, "d"), (16, "é" * 127 + "x")])
def test_a_path_longer_than_the_system_limit_is_listed_and_read(deep: Path, depth: int, name: str) -> None:
    touch(deep, "top.png", f"{name}/beside.png")
    make_deep(deep, depth, name, b"content")
    assert holds_images(deep)
    top, beside, image = sorted(list_images(deep), key=lambda image: image.size or len(image.path) - 9999)
    assert sorted([top.path, beside.path]) == sorted(["top.png", f"{name}/beside.png"])
    assert (image.path, image.size, image.problem) == (f"{name}/" * depth + "x.png", 7, None)
    assert len(os.fsencode(image.path)) > 4096
    assert reader_of(deep)([top, image]) == [b"", b"content"]
    assert read_again(deep, image.path) == b"content"


def make_deep(folder: Path, depth: int, name: str, content: bytes = b"") -> None:
    """Create nested folders step by step, with one image in the last."""
    place = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=place)
        inner = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    with os.fdopen(os.open("x.png", os.O_CREAT | os.O_WRONLY, dir_fd=place), "wb") as file:
        file.write(content)
    os.close(place)


def test_folders_are_listed_lazily(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/2.png", "b/1.png", "c/1.png")
    listed = list_images(tmp_path)
    assert next(listed).path == "a/1.png"
    touch(tmp_path, "b/2.png")
    shutil.rmtree(tmp_path / "c")
    assert [next(listed).path for _ in range(3)] == ["a/2.png", "b/1.png", "b/2.png"]
    (gone,) = listed
    assert gone == ListedImage("c/", 0, 0, 0, "the folder cannot be listed (No such file or directory)")


def test_a_removed_folder_ends_the_listing(tmp_path: Path) -> None:
    touch(tmp_path / "images", "a/1.png", "b/1.png")
    listed = list_images(tmp_path / "images")
    assert next(listed).path == "a/1.png"
    (tmp_path / "images").rename(tmp_path / "unplugged")
    with pytest.raises(WorkError, match=r"/images cannot be listed \(No such file or directory\)"):
        list(listed)


def as_nobody(look: Callable[[], object]) -> Any:
    """Call a function as an unprivileged user; returns its result."""
    if os.geteuid():
        return json.loads(json.dumps(look()))
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.setgroups([])
        os.setegid(65534)
        os.seteuid(65534)
        with os.fdopen(writing, "w") as file:
            json.dump(look(), file)
            file.flush()
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        found = json.load(file)
    os.waitpid(child, 0)
    return found


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that other users can access, unlike those of pytest."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_an_unreadable_folder_is_one_row_and_the_rest_is_listed(open_to_all: Path) -> None:
    touch(open_to_all, "a.png", "b/1.png", "b.png", "names only/1.png", "z.png")
    (open_to_all / "b").chmod(0)
    (open_to_all / "names only").chmod(0o444)
    locked = ListedImage("b/", 0, 0, 0, "the folder cannot be listed (Permission denied)")

    def look() -> object:
        listed = list(list_images(open_to_all))
        contents = reader_of(open_to_all)(listed)
        return [
            (image.path, image.problem, str(content)) for image, content in zip(listed, contents, strict=True)
        ]

    rows = as_nobody(look)
    for folder in ("b", "names only"):
        (open_to_all / folder).chmod(0o755)
    assert rows == [
        ["a.png", None, "b''"],
        ["b.png", None, "b''"],
        ["b/", locked.problem, f"unreadable: {locked.problem}"],
        ["names only/1.png", None, "unreadable: Permission denied"],
        ["z.png", None, "b''"],
    ]


def test_unreadable_folders_are_something_to_list(open_to_all: Path) -> None:
    touch(open_to_all, "b/1.png")
    (open_to_all / "b").chmod(0)
    assert as_nobody(lambda: holds_images(open_to_all)) is True
    (open_to_all / "b").chmod(0o755)


@pytest.mark.parametrize("name", ["loop.png", "loop"])
def test_circular_links_are_harmless(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(name)
    assert holds_images(tmp_path) is (name == "loop.png")
    touch(tmp_path, "z.png")
    assert holds_images(tmp_path)
    counts = SkippedFiles()
    listed = list(list_images(tmp_path, (), counts))
    assert [image.problem for image in listed] == ["a link to itself"] * (name == "loop.png") + [None]
    assert counts.total == (name == "loop")


def test_skipped_files_are_counted(tmp_path: Path) -> None:
    names = ["b.cr2", "c.ARW", "d/e.cr2", "f.png?w=300", "g", "h.png ", "i.jpg_large", "j." + "x" * 17]
    hidden = [".hidden.png", ".cache/1.png", ".cache/2.png"]
    clutter = ["@eaDir/a.png/t.jpg", "d/@eaDir/e.jpg", ".DS_Store", "Thumbs.db", "thumbs.db", "._a.png"]
    touch(tmp_path / "images", "a.png", "d/z.png", *names, *hidden, *clutter)
    touch(tmp_path, "elsewhere/1.png")
    for link in ("linked", "linked.png", "d/linked"):
        (tmp_path / "images" / link).symlink_to(tmp_path / "elsewhere")
    counts = SkippedFiles()
    assert [image.path for image in list_images(tmp_path / "images", (), counts)] == ["a.png", "d/z.png"]
    kinds = {
        "extensions": {
            ".cr2": 2,
            ".arw": 1,
            ".jpg_large": 1,
            ".png ": 1,
            ".png?w=300": 1,
            "no extension": 1,
            "other": 1,
        },
        "linked_folders": 3,
        "hidden": 2,
        "clutter": {"@eaDir": 2, "Thumbs.db": 2, "._*": 1, ".DS_Store": 1},
    }
    assert counts.describe() == kinds
    assert counts.total == 8 + 3 + 2 + 6
    assert format_skipped(kinds) == (
        "8 files (.cr2 2, .arw 1, .jpg_large 1, .png  1, .png?w=300 1, 2 more kinds), 3 linked folders, "
        "2 hidden, clutter (@eaDir 2, Thumbs.db 2, .DS_Store 1, ._* 1)"
    )
    # The same in a remote folder, which has no links.
    system = fsspec.filesystem("memory")
    for path in (tmp_path / "images").rglob("*"):
        if path.is_file():
            system.pipe_file(f"/passed-over/{path.relative_to(tmp_path / 'images').as_posix()}", b"")
    remote = SkippedFiles()
    assert len(list(list_images(parse_location("memory://passed-over"), (), remote))) == 2
    assert remote.describe() == {**kinds, "linked_folders": 0}


def test_patterns_also_skip_clutter(tmp_path: Path) -> None:
    touch(tmp_path, "a.dat", "Thumbs.db", "b.png")
    counts = SkippedFiles()
    assert [image.path for image in list_images(tmp_path, ["*"], counts)] == ["a.dat", "b.png"]
    assert counts.describe()["clutter"] == {"Thumbs.db": 1}
    assert format_skipped(SkippedFiles().describe()) == ""


def test_very_many_extensions_are_counted_together() -> None:
    counts = SkippedFiles()
    for number in range(2000):
        counts.count_file(f"file.{number}")
    assert counts.total == 2000
    assert len(counts.extensions) == 501


def test_a_file_removed_during_the_listing_is_a_row(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "c.png")
    listed = list_images(tmp_path)
    assert next(listed).path == "a.png"
    (tmp_path / "b.png").unlink()
    gone, last = listed
    assert (gone.path, last.path) == ("b.png", "c.png")
    assert gone.problem
    assert last.problem is None


def test_a_remote_folder_is_listed_like_a_local_one(tmp_path: Path) -> None:
    names = [
        "B.png",
        "a-b.png",
        "a.png",
        "a/b/c [1]*.png",
        "a/x?.png",
        "ab.png",
        "é/%FF.png",
        "line\nbreak.png",
        "notes.txt",
        ".hidden.png",
        ".cache/x.png",
    ]
    touch(tmp_path, *names)
    system, root = fsspec.filesystem("memory"), "/test-listing"
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
        system.pipe_file(f"{root}/{name}", name.encode())
    remote = parse_location(f"memory:/{root}")
    for globs in ([], ["*.txt"], ["*"]):
        local = list(list_images(tmp_path, globs))
        found = list(list_images(remote, globs))
        assert [image[:2] for image in found] == [image[:2] for image in local]
        assert all(image.modified_ns > 0 and image.problem is None for image in found)
    with pytest.raises(WorkError, match="cannot be listed"):
        list(list_images(parse_location("memory://test-listing-gone")))
