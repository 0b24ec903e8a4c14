"""CIFAR-10 and Fashion-MNIST from mirrors on loopback: small files of the same form."""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelmill.pipeline.config import Cifar10Source, FashionMnistSource, Recipe
from pixelmill.pipeline.datasets import cifar10, fashion_mnist
from pixelmill.pipeline.datasets.cifar10 import FOLDER, TEST, TRAIN, read_cifar10, read_records
from pixelmill.pipeline.datasets.download import count_classes, download_dataset
from pixelmill.pipeline.datasets.idx import write_idx
from pixelmill.pipeline.datasets.mirrors import DownloadedFiles, WantedFile
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.errors import DownloadError, WorkError
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.recipes import load_recipe
from tests.servers import FileServer, serving

NAME = cifar10.ARCHIVE.name
CLASSES = 10
EACH = 3


def batch(seed: int) -> tuple[bytes, Pixels]:
    """Three images of each class, as the binary form has them, and as they are."""
    pixels = np.random.default_rng(seed).integers(0, 256, (CLASSES * EACH, 32, 32, 3), np.uint8)
    records = [
        bytes([index % CLASSES]) + b"".join(image[..., channel].tobytes() for channel in range(3))
        for index, image in enumerate(pixels)
    ]
    return b"".join(records), pixels


def archive(members: dict[str, bytes], special: tarfile.TarInfo | None = None) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        if special is not None:
            tar.addfile(special)
        for name, data in {f"{FOLDER}/readme.html": b"<html>", **members}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def small_archive() -> bytes:
    return archive({name: batch(seed)[0] for seed, name in enumerate((*TRAIN, TEST))})


def wanted(name: str, content: bytes) -> WantedFile:
    return WantedFile(name, hashlib.sha256(content).hexdigest(), len(content))


def prepare(recipe: Recipe, store: Path) -> dict[str, Pixels]:
    dataset = prepare_dataset(download_dataset(recipe.dataset, store), recipe, store)
    assert (
        dataset.class_names == {"cifar10": cifar10, "fashion-mnist": fashion_mnist}[dataset.name].CLASS_NAMES
    )
    test = dataset.split("test")
    assert test.labels.tolist() == list(range(CLASSES)) * EACH
    return {"test": np.asarray(test.pixels), "train": np.asarray(dataset.split("train").pixels)}


def test_cifar10_comes_from_the_mirror_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = small_archive()
    monkeypatch.setattr(cifar10, "ARCHIVE", wanted(NAME, content))
    bad, good = FileServer({NAME: content[:-1] + b"x"}), FileServer({NAME: content}, break_after=[1000])
    with serving(bad), serving(good):
        recipe = load_recipe("cifar10", [f"dataset.mirrors=[{bad.url}, {good.url}]"])
        images = prepare(recipe, tmp_path)
    assert len(good.requests) == 2
    assert np.array_equal(images["test"], batch(5)[1])
    assert len(images["train"]) == 5 * CLASSES * (EACH - 1) + 3 * CLASSES


def test_fashion_mnist_comes_from_the_mirror_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(CLASSES, dtype=np.uint8), EACH)
    arrays = [random.integers(0, 256, (len(labels), 28, 28), np.uint8), labels] * 2
    files = {
        file.name: gzip.compress(write_idx(array))
        for file, array in zip(fashion_mnist.FILES, arrays, strict=True)
    }
    small = tuple(wanted(name, content) for name, content in files.items())
    monkeypatch.setattr(fashion_mnist, "FILES", small)
    with serving(FileServer(files)) as server:
        recipe = load_recipe("fashion-mnist", [f"dataset.mirrors=[{server.url}]"])
        images = prepare(recipe, tmp_path)
    assert np.array_equal(images["test"], arrays[2][..., np.newaxis])


@pytest.mark.parametrize(
    "source",
    [
        Cifar10Source(source="cifar10", mirrors=()),
        FashionMnistSource(source="fashion-mnist", mirrors=()),
    ],
    ids=lambda source: source.source,
)
def test_without_a_mirror_that_has_it_there_is_one_line(
    source: Cifar10Source | FashionMnistSource, tmp_path: Path
) -> None:
    with serving(FileServer({})) as server, pytest.raises(DownloadError, match="404"):
        download_dataset(source.model_copy(update={"mirrors": (server.url,)}), tmp_path)
    assert count_classes(source) == CLASSES


def refused(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / NAME
    path.write_bytes(content)
    with pytest.raises(WorkError) as caught:
        read_cifar10(DownloadedFiles({NAME: path}, ""))
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == [NAME]
    return str(caught.value)


def test_an_archive_of_another_form_is_refused(tmp_path: Path) -> None:
    good = {name: batch(seed)[0] for seed, name in enumerate((*TRAIN, TEST))}
    assert f"no {TEST}" in refused(tmp_path, archive({name: good[name] for name in TRAIN}))
    assert "cannot be read" in refused(tmp_path, b"no archive")
    assert "cannot be read" in refused(tmp_path, small_archive()[:-40_000])
    assert "records of 3073" in refused(tmp_path, archive({**good, TEST: good[TEST][1:]}))
    assert "a label below 10" in refused(tmp_path, archive({**good, TEST: b"\x0a" + good[TEST][1:]}))
    assert "of 30730001 bytes" in refused(tmp_path, archive({**good, TRAIN[0]: bytes(30_730_001)}))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "readme.html"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_the_place_of_a_batch_is_not_followed(tmp_path: Path, target: str, kind: bytes) -> None:
    link = tarfile.TarInfo(TEST)
    link.type, link.linkname = kind, target
    assert "cannot be read" in refused(tmp_path, archive({}, link))


@given(st.binary(max_size=200) | st.binary(min_size=3073, max_size=3073))
def test_any_bytes_are_records_or_refused(content: bytes) -> None:
    try:
        images = read_records(content)
    except WorkError:
        assert len(content) != 3073 or content[0] >= CLASSES
    else:
        assert images.pixels.shape == (1, 32, 32, 3)
        assert images.labels.tolist() == [content[0]]
