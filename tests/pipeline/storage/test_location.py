"""Places on this machine and behind addresses."""

from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.storage import (
    absolute,
    children,
    file_system,
    is_remote,
    link_or_copy,
    local_path,
    parse_location,
    relative_to_here,
    resolves_within,
)


@pytest.mark.parametrize(
    "text", ["images", "/data/images", "a:b", "c:/d", "s3:/bucket", "~/images", ".", "é"]
)
def test_a_path_is_one_of_this_machine(text: str) -> None:
    path = parse_location(text)
    assert path == Path(text)
    assert type(path) is type(Path(text))
    assert not is_remote(path)
    assert parse_location(path) == path


def test_a_path_means_the_same_to_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert absolute(parse_location("link")) == str((tmp_path / "real").resolve())
    assert parse_location(absolute(Path("real"))) == (tmp_path / "real").resolve()


def test_an_address_is_remote_and_survives_being_written_down() -> None:
    path = parse_location("memory://test-locations/folder")
    assert is_remote(path)
    assert absolute(path) == "memory://test-locations/folder"
    again = parse_location(absolute(path))
    assert again == path
    assert absolute(again / "é b.png") == "memory://test-locations/folder/é b.png"


def test_a_remote_path_has_the_methods_of_a_path() -> None:
    folder = parse_location("memory://test-locations/methods")
    assert not folder.exists()
    (folder / "in").mkdir(parents=True)
    (folder / "in/a.txt").write_bytes(b"content")
    assert is_remote(folder)
    system, root = file_system(folder)
    assert system.cat_file(f"{root}/in/a.txt") == b"content"
    assert (folder / "in").is_dir()
    assert (folder / "in/a.txt").is_file()
    assert [path.name for path in folder.iterdir()] == ["in"]
    (folder / "in/a.txt").unlink()
    assert not (folder / "in/a.txt").exists()


def test_what_another_writes_meanwhile_is_seen() -> None:
    folder = parse_location("memory://test-locations/shared")
    (folder / "a.txt").write_bytes(b"1")
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    fsspec.filesystem("memory").pipe_file("/test-locations/shared/b.txt", b"2")
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt"]


def test_an_address_of_this_machine_s_own_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"content")
    folder = parse_location(tmp_path.as_uri())
    assert is_remote(folder)
    assert (folder / "a.txt").read_bytes() == b"content"
    assert (parse_location(absolute(folder)) / "a.txt").read_bytes() == b"content"


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_what_lies_in_a_folder(kind: str, tmp_path: Path) -> None:
    folder = tmp_path if kind == "local" else parse_location("memory://test-locations/children")
    for name in ("a.txt", "b [1]*.txt", "in/c.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")
    found = children(folder)
    assert sorted(path.name for path in found) == ["a.txt", "b [1]*.txt", "in"]
    assert all(path.parent == folder for path in found)
    assert [path.name for path in children(folder / "in")] == ["c.txt"]


def test_a_remote_folder_that_is_not_there_is_an_empty_one(tmp_path: Path) -> None:
    assert children(parse_location("memory://test-locations/gone")) == []
    with pytest.raises(FileNotFoundError):
        children(tmp_path / "gone")


def uninstalled() -> str:
    """A kind of address that fsspec knows, and whose package is not installed here."""
    packages = {"gs": "gcsfs", "abfs": "adlfs", "dropbox": "dropboxdrivefs", "oss": "ossfs", "box": "boxfs"}
    for kind, package in packages.items():
        if find_spec(package) is None:
            return kind
    pytest.skip("all file systems are installed here")


@pytest.mark.parametrize("text", ["nonsense://bucket/folder", "github://folder"])
def test_an_address_that_nothing_reaches_is_told(text: str) -> None:
    with pytest.raises(RequestError, match=text) as caught:
        parse_location(text)
    assert len(str(caught.value).splitlines()) == 1


def test_an_address_that_only_another_package_reaches_is_told() -> None:
    with pytest.raises(RequestError, match="nstall"):
        parse_location(f"{uninstalled()}://bucket/folder")


def test_an_address_is_no_local_path(tmp_path: Path) -> None:
    address = parse_location("memory://test-locations/local")
    with pytest.raises(TypeError, match="memory://test-locations/local"):
        local_path(address)
    assert local_path(tmp_path) == tmp_path
    (tmp_path / "a").write_text("a")
    for source, target in ((tmp_path / "a", address / "a"), (address / "a", tmp_path / "b")):
        with pytest.raises(TypeError):
            link_or_copy(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_lies_in_a_folder_unless_a_link_leads_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "folder/in").mkdir(parents=True)
    for name, target in {"out": "..", "within": "in", "cyclic": "cyclic"}.items():
        (tmp_path / "folder" / name).symlink_to(target)
    places = ("in/a", "within/a", "cyclic/a", "out/a")
    found = [resolves_within(tmp_path / "folder" / place, tmp_path / "folder") for place in places]
    assert found == [True, True, True, False]
    folder = parse_location("memory://test-locations/folder")
    assert resolves_within(folder / "a", folder)


def test_a_path_below_the_current_folder_is_shown_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert relative_to_here(tmp_path / "in/a") == "in/a"
    assert relative_to_here(tmp_path.parent) == str(tmp_path.parent)
    assert relative_to_here(parse_location("memory://in/a")) == "memory://in/a"
