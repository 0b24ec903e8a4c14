"""Datasets in archives: found here, at an address or on a web server, and unpacked once."""

import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixelmill.pipeline.config import ArchiveSource
from pixelmill.pipeline.datasets.archive_datasets import check_archive, list_archive
from pixelmill.pipeline.datasets.catalogue import ListedImage
from pixelmill.pipeline.errors import DownloadError, PixelmillError, RequestError
from pixelmill.pipeline.recipes import load_recipe
from tests.conftest import write_images
from tests.pipeline.datasets.test_parquet_datasets import write_parquet
from tests.s3 import S3Server, s3_server
from tests.servers import FileServer, serving


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of four images each, and what macOS leaves in archives."""
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "pets" / name, 4, seed)
    return tmp_path / "pets"


def pack(folder: Path, archive: Path, clutter: bool = False) -> Path:
    """An archive of a folder, in the format that the name says."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder.parent))
            if clutter:
                file.writestr("__MACOSX/._pets", b"")
    else:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder, folder.name)
    return archive


def source(path: Path | str, **fields: object) -> ArchiveSource:
    return ArchiveSource.model_validate({"source": "archive", "path": str(path), **fields})


def listed(archive: ArchiveSource, cache: Path) -> list[ListedImage]:
    listing = list_archive(archive, cache)
    images = list(listing.images)
    for image in images:
        assert isinstance(listing.reader.read(image.place), bytes)
    return images


def refusal(archive: ArchiveSource, cache: Path, kind: type[PixelmillError] = RequestError) -> str:
    with pytest.raises(kind) as caught:
        listed(archive, cache)
    assert "\n" not in str(caught.value)
    left = {path.name for path in (cache / "archives").glob("*") if path.is_dir() and path.name != "partial"}
    assert left == set(), "nothing half done stays in the cache"
    assert not list((cache / "archives/partial").glob("*"))
    return str(caught.value)


@pytest.mark.parametrize("name", ["pets.zip", "pets.tar.gz"])
def test_a_folder_of_classes_is_found_in_an_archive(name: str, pets: Path, tmp_path: Path) -> None:
    archive = pack(pets, tmp_path / name, clutter=True)
    images = listed(source(archive), tmp_path / "cache")
    assert [(image.name, image.class_name) for image in images] == [
        (f"{label}/{number:05}.png", label) for label in ("cat", "dog") for number in range(4)
    ]
    assert images[0].origin == f"{archive}!pets/cat/00000.png"
    assert {image.stamp for image in images} == {hashlib.sha256(archive.read_bytes()).hexdigest()}


def test_an_archive_is_unpacked_once_while_its_content_is_the_same(pets: Path, tmp_path: Path) -> None:
    archive, cache = pack(pets, tmp_path / "pets.zip"), tmp_path / "cache"
    first = listed(source(archive), cache)
    inode = Path(first[0].place).stat().st_ino
    assert listed(source(archive), cache) == first
    copy = shutil.copy(archive, tmp_path / "copy.zip")
    assert Path(listed(source(copy), cache)[0].place).stat().st_ino == inode
    write_images(pets / "eel", 4, seed=9)
    pack(pets, archive)
    assert len(listed(source(archive), cache)) == 12


def test_splits_in_an_archive_are_used(pets: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(pets, tmp_path / "sets" / split)
    images = listed(source(pack(tmp_path / "sets", tmp_path / "sets.zip")), tmp_path / "cache")
    assert {(image.part, image.name.split("/")[0]) for image in images} == {("train",) * 2, ("test",) * 2}


def test_a_table_in_an_archive_names_its_images(pets: Path, tmp_path: Path) -> None:
    rows = [f"{label}/{number:05}.png,{label},{number}" for label in ("cat", "dog") for number in range(4)]
    (pets / "labels.csv").write_text("\n".join(["path,label,group", *rows]))
    archive = pack(pets, tmp_path / "pets.zip")
    images = listed(source(archive, table="pets/labels.csv"), tmp_path / "cache")
    assert [(image.name, image.group) for image in images][5] == ("dog/00001.png", "1")
    with pytest.raises(
        RequestError, match=r"pets\.zip has no member \.\./labels\.csv|no member '\.\./labels"
    ):
        list_archive(source(archive, table="../labels.csv"), tmp_path / "cache")
    with pytest.raises(RequestError, match=r"table .*pets\.zip!pets/labels\.csv has no column 'file'"):
        list_archive(source(archive, table="pets/labels.csv", path_column="file"), tmp_path / "cache")


@pytest.mark.parametrize("path", ["../../../../outside.png", "/etc/passwd", "s3://elsewhere/outside.png"])
def test_a_table_in_an_archive_names_nothing_outside_of_it(path: str, pets: Path, tmp_path: Path) -> None:
    (pets / "labels.csv").write_text(f"path,label\ncat/00000.png,cat\n{path},dog\n")
    archive = pack(pets, tmp_path / "pets.zip")
    with pytest.raises(
        RequestError, match=r"labels\.csv, line 3 of an archive names .*; expected files in the"
    ):
        listed(source(archive, table="pets/labels.csv"), tmp_path / "cache")


def test_parquet_files_in_an_archive_are_read(pets: Path, tmp_path: Path) -> None:
    contents = [path.read_bytes() for path in sorted(pets.rglob("*.png"))]
    write_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet", [*contents[:6]], [0, 1] * 3)
    write_parquet(tmp_path / "hub/data/test-00000-of-00001.parquet", [*contents[6:]], [0, 1])
    listing = list_archive(source(pack(tmp_path / "hub", tmp_path / "hub.zip")), tmp_path / "cache")
    assert [listing.reader.read(image.place) for image in listing.images] == contents[6:] + contents[:6]


def test_an_archive_on_a_web_server_is_downloaded_once(pets: Path, tmp_path: Path) -> None:
    content = pack(pets, tmp_path / "pets.tar.gz").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    with serving(FileServer({"pets.tar.gz": content}, break_after=[len(content) // 2])) as server:
        url = f"{server.url}pets.tar.gz"
        images = listed(source(url, sha256=sha256.upper()), tmp_path / "cache")
        assert len(images) == 8
        assert images[0].origin == f"{url}!pets/cat/00000.png"
        assert len(server.requests) == 2
        assert listed(source(url, sha256=sha256), tmp_path / "cache") == images
        assert len(server.requests) == 2
    assert not list((tmp_path / "cache/archives/partial").iterdir())


def test_a_url_needs_a_hash(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"expected dataset\.sha256 for an archive at a URL"):
        load_recipe("folder", ["dataset={source: archive, path: 'https://host/pets.zip'}"])


@pytest.mark.parametrize(
    ("server", "kind", "reason"),
    [
        (FileServer({}), DownloadError, "responds with 404 Not Found"),
        (FileServer({"pets.zip": b"x"}, status=500), DownloadError, "responds with 500 Internal Server"),
        (FileServer({"pets.zip": b"<html>"}, content_type="text/html"), DownloadError, "a page of HTML"),
        (FileServer({"pets.zip": b"<html>gone"}), RequestError, "is a page of HTML or XML; expected a .zip"),
        (FileServer({"pets.zip": b"PK\x03\x04 other"}), RequestError, "has the SHA-256 "),
    ],
    ids=["404", "500", "typed page", "page", "other content"],
)
def test_a_server_that_has_no_such_archive_is_one_line(
    server: FileServer, kind: type[PixelmillError], reason: str, tmp_path: Path
) -> None:
    with serving(server):
        assert reason in refusal(source(f"{server.url}pets.zip", sha256="0" * 64), tmp_path / "cache", kind)


def test_an_archive_at_an_address_is_fetched_when_it_changes(
    pets: Path, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    content = pack(pets, tmp_path / "pets.zip").read_bytes()
    archive = source("s3://archives/pets.zip")
    with s3.bucket("archives"):
        with pytest.raises(RequestError, match=r"dataset\.path s3://archives/pets\.zip does not exist"):
            check_archive(archive)
        s3.client.put_object(Bucket="archives", Key="pets.zip", Body=content)
        images = listed(archive, tmp_path / "cache")
        assert images[0].origin == "s3://archives/pets.zip!pets/cat/00000.png"
        s3.requests.clear()
        assert listed(archive, tmp_path / "cache") == images
        assert not [path for method, path, _ in s3.requests if method == "GET" and "pets.zip?" in path]


def test_an_archive_that_is_wrong_is_one_line_and_leaves_nothing(pets: Path, tmp_path: Path) -> None:
    archive, cache = pack(pets, tmp_path / "pets.zip"), tmp_path / "cache"
    assert "has the SHA-256 " in refusal(source(archive, sha256="0" * 64), cache)
    assert "has more than 3 files; expected" in refusal(source(archive, max_files=3), cache)
    assert "does not exist" in refusal(source(tmp_path / "none.zip"), cache)
    assert "is a folder; expected" in refusal(source(pets), cache)
    archive.write_bytes(archive.read_bytes()[:-30])
    assert "cannot be unpacked" in refusal(source(archive), cache)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        link = tarfile.TarInfo("pets/cat")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    archive.write_bytes(content.getvalue())
    assert "its member 'pets/cat' is a link" in refusal(source(archive), cache)


def test_errors_about_the_content_name_the_archive(pets: Path, tmp_path: Path) -> None:
    shutil.rmtree(pets / "dog")
    archive = pack(pets, tmp_path / "pets.zip")
    with pytest.raises(RequestError) as caught:
        list_archive(source(archive), tmp_path / "cache")
    assert f"{archive}!" in str(caught.value)
    assert "cache/archives" not in str(caught.value)
