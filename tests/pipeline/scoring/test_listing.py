"""Listing a folder: every image once, in the table's order, whatever the names."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.images import EXTENSIONS
from pipeline.scoring.listing import escape, list_images, unescape

# All bytes a file name may hold on Linux, with those that matter more often than by chance.
NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & {0, ord("/")}) | st.text(
    st.sampled_from("%aF2=\n. é\u202e"), min_size=1, max_size=8
).map(os.fsencode)


def paths(folder: Path) -> list[str]:
    return [image.path for image in list_images(folder)]


@given(NAMES)
def test_every_name_comes_back_from_its_escaped_form(name: bytes) -> None:
    text = escape(os.fsdecode(name))
    assert os.fsencode(unescape(text)) == name
    text.encode("utf-8")
    assert not any(ord(letter) < 32 for letter in text)


@given(NAMES, NAMES)
def test_different_names_have_different_escaped_forms(one: bytes, other: bytes) -> None:
    assert (escape(os.fsdecode(one)) == escape(os.fsdecode(other))) == (one == other)


@pytest.mark.parametrize("name", ["plain.png", "100%.png", "=1+1.png", "ä b.png", "50%zoom.png"])
def test_plain_text_stays_as_it_is(name: str) -> None:
    assert escape(name) == name


@pytest.mark.parametrize(
    ("name", "escaped"),
    [(b"\xff.png", "%FF.png"), (b"%FF.png", "%25FF.png"), (b"a\nb.png", "a%0Ab.png")],
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


def test_folders_sort_among_files_as_whole_paths_do(tmp_path: Path) -> None:
    for name in ("a/x.png", "a-b.png", "a.png", "a/b/c.png", "ab.png", "B.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert paths(tmp_path) == sorted(paths(tmp_path))
    assert paths(tmp_path) == ["B.png", "a-b.png", "a.png", "a/b/c.png", "a/x.png", "ab.png"]


def test_only_images_that_show_are_listed(tmp_path: Path) -> None:
    for extension in EXTENSIONS:
        (tmp_path / f"small{extension}").touch()
        (tmp_path / f"LARGE{extension.upper()}").touch()
    for name in ("notes.txt", "png", ".hidden.png", "archive.png.gz"):
        (tmp_path / name).touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/x.png").touch()
    assert len(paths(tmp_path)) == 2 * len(EXTENSIONS)


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/real.png").write_bytes(b"12345")
    (tmp_path / "folder/loop.png").symlink_to(tmp_path / "folder")
    (tmp_path / "folder/up").symlink_to(tmp_path)
    (tmp_path / "link.png").symlink_to(tmp_path / "folder/real.png")
    listed = {image.path: image for image in list_images(tmp_path)}
    assert set(listed) == {"folder/real.png", "link.png"}
    assert listed["link.png"].size == 5


def test_what_only_looks_like_an_image_comes_with_its_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket.png"))
        problems = {image.path: image.problem for image in list_images(tmp_path)}
    assert problems == {
        "pipe.png": "a pipe",
        "nowhere.png": "a link to nothing",
        "self.png": "a link to itself",
        "socket.png": "a socket",
    }
