"""Listing a folder: every image once, in the table's order, whatever the names."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import WorkError
from pipeline.images import EXTENSIONS
from pipeline.locations import parse_location
from pipeline.scoring.listing import ListedImage, escape, list_images, unescape

# All bytes a file name may hold on Linux, with those that matter more often than by chance.
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
def test_every_name_comes_back_from_its_escaped_form(name: bytes) -> None:
    text = escape(os.fsdecode(name))
    assert os.fsencode(unescape(text)) == name
    text.encode("utf-8")
    assert not any(ord(letter) < 32 for letter in text)


@given(NAMES, NAMES)
def test_different_names_have_different_escaped_forms(one: bytes, other: bytes) -> None:
    assert (escape(os.fsdecode(one)) == escape(os.fsdecode(other))) == (one == other)


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_a_path_is_escaped_name_by_name(names: list[bytes]) -> None:
    path = "/".join(escape(os.fsdecode(name)) for name in names)
    assert os.fsencode(unescape(path)).split(b"/") == names


@pytest.mark.parametrize("name", ["plain.png", "100%.png", "=1+1.png", "ä b.png", "50%zoom.png"])
def test_plain_text_stays_as_it_is(name: str) -> None:
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
def test_what_is_not_plain_text_is_escaped(name: bytes, escaped: str) -> None:
    assert escape(os.fsdecode(name)) == escaped


@settings(max_examples=60, deadline=None)
@given(
    st.sets(
        st.lists(NAMES.filter(lambda name: name[:1] != b"."), min_size=1, max_size=3).map(tuple), max_size=12
    )
)
def test_any_tree_is_listed_whole_and_sorted(
    tmp_path_factory: pytest.TempPathFactory, tree: set[tuple[bytes, ...]]
) -> None:
    root = os.fsencode(tmp_path_factory.mktemp("tree"))
    wanted = set()
    for *folders, name in tree:
        # Folders end in a letter that files do not, so that no name must be both.
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


def test_folders_sort_among_files_as_whole_paths_do(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.png", "a-b.png", "a.png", "a/b/c.png", "ab.png", "B.png")
    assert paths(tmp_path) == sorted(paths(tmp_path))
    assert paths(tmp_path) == ["B.png", "a-b.png", "a.png", "a/b/c.png", "a/x.png", "ab.png"]


def test_only_images_that_show_are_listed(tmp_path: Path) -> None:
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
def test_patterns_take_the_place_of_the_extensions(
    globs: list[str], wanted: list[str], tmp_path: Path
) -> None:
    touch(tmp_path, "a.dat", "b.PNG", "c.png", "d.txt", "in/b.dat", "in/plain", ".e.dat", ".in/f.dat")
    assert paths(tmp_path, *globs) == wanted


def test_a_listed_image_says_what_the_system_says_of_it(tmp_path: Path) -> None:
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


def test_what_only_looks_like_an_image_comes_with_its_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "one.png").symlink_to("other.png")
    (tmp_path / "other.png").symlink_to("one.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    (tmp_path / "below a file.png").symlink_to("null.png/x")
    monkeypatch.chdir(tmp_path)  # A socket's whole path may have 107 bytes.
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket.png")
        listed = list(list_images(tmp_path))
    assert {image.path: image.problem for image in listed} == {
        "pipe.png": "a pipe",
        "nowhere.png": "a link to nothing",
        "self.png": "a link to itself",
        "one.png": "a link to itself",
        "other.png": "a link to itself",
        "null.png": "a device",
        "below a file.png": "Not a directory",
        "socket.png": "a socket",
    }
    assert {image[1:4] for image in listed} == {(0, 0, 0)}


@pytest.mark.parametrize("letter", ["a", "é", "\n"])
def test_the_longest_names_and_long_paths(letter: str, tmp_path: Path) -> None:
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
    """A folder for a tree too deep for Python to remove."""
    (tmp_path / "deep").mkdir()
    yield tmp_path / "deep"
    subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)


def test_a_tree_deeper_than_the_stack_of_python(deep: Path) -> None:
    depth = 1100
    make_deep(deep, depth, "d")
    assert paths(deep) == ["d/" * depth + "x.png"]


def test_a_tree_too_deep_for_the_system_is_an_error_and_not_left_out(deep: Path) -> None:
    make_deep(deep, 20, "d" * 250)
    with pytest.raises(WorkError, match="cannot be listed"):
        paths(deep)


def make_deep(folder: Path, depth: int, name: str) -> None:
    """Folders in folders, and one image in the last, by steps that have no limit."""
    place = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=place)
        inner = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(os.open("x.png", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)


def test_folders_are_looked_into_one_after_the_other(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/2.png", "b/1.png", "c/1.png")
    listed = list_images(tmp_path)
    assert next(listed).path == "a/1.png"
    touch(tmp_path, "b/2.png")
    shutil.rmtree(tmp_path / "c")
    assert [next(listed).path for _ in range(3)] == ["a/2.png", "b/1.png", "b/2.png"]
    with pytest.raises(WorkError, match=r"/c/? cannot be listed \(No such file or directory\)"):
        next(listed)


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b/1.png")
    (tmp_path / "b").chmod(0)
    try:
        if os.access(tmp_path / "b", os.R_OK):
            pytest.skip("this user reads every folder")
        listed = list_images(tmp_path)
        assert next(listed).path == "a.png"
        with pytest.raises(WorkError, match="Permission denied"):
            next(listed)
    finally:
        (tmp_path / "b").chmod(0o700)


def test_a_file_that_goes_while_its_folder_is_listed_is_a_row(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "c.png")
    listed = list_images(tmp_path)
    assert next(listed).path == "a.png"
    (tmp_path / "b.png").unlink()
    gone, last = listed
    assert (gone.path, last.path) == ("b.png", "c.png")
    assert gone.problem
    assert last.problem is None


def test_a_remote_folder_is_listed_as_a_local_one(tmp_path: Path) -> None:
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
