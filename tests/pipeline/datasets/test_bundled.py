"""Listings of the datasets that are arrays, and CIFAR-100 in its binary form."""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.config import Cifar100Source, DigitsSource
from pixelmill.pipeline.datasets import cifar100, digits
from pixelmill.pipeline.datasets.bundled import list_bundled
from pixelmill.pipeline.datasets.mirrors import WantedFile
from pixelmill.pipeline.errors import WorkError
from tests.servers import FileServer, serving


def archive(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def test_the_digits_are_listed_with_the_hashes_of_their_pixels(tmp_path: Path) -> None:
    listing = list_bundled(DigitsSource(source="digits"), tmp_path)
    images = list(listing.images)
    wanted = digits.read_digits()
    assert [image.name for image in images] == [f"digit {index}" for index in range(1797)]
    assert [image.class_name for image in images] == [str(label) for label in wanted.labels]
    assert {image.part for image in images} == {None}
    reader = pickle.loads(pickle.dumps(listing.reader))
    for image in images[::100]:
        pixels = reader.read(image.place)
        assert hashlib.sha256(pixels).hexdigest() == image.sha256
    assert np.array_equal(reader.read("digit 17"), wanted.pixels[17])


def test_cifar100_has_its_fine_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    fine = (0, 99, 8, 42)
    records = [
        bytes([19, label]) + image.transpose(2, 0, 1).tobytes()
        for label, image in zip(fine, pixels, strict=True)
    ]
    content = archive({cifar100.TRAIN: b"".join(records[:3]), cifar100.TEST: records[3]})
    wanted = WantedFile(cifar100.ARCHIVE.name, hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setattr(cifar100, "ARCHIVE", wanted)
    with serving(FileServer({wanted.name: content})) as server:
        listing = list_bundled(Cifar100Source(source="cifar100", mirrors=(server.url,)), tmp_path)
        images = list(listing.images)
        assert listing.provenance == server.url
    assert [(image.name, image.part, image.class_name) for image in images] == [
        ("train 0", "train", "apple"),
        ("train 1", "train", "worm"),
        ("train 2", "train", "bicycle"),
        ("test 0", "test", "leopard"),
    ]
    assert len(set(listing.class_names)) == 100
    assert np.array_equal(listing.reader.read("test 0"), pixels[3])
    assert images[3].sha256 == hashlib.sha256(pixels[3]).hexdigest()


def test_cifar100_with_labels_out_of_range_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = archive({cifar100.TRAIN: bytes([1, 100]) + bytes(3072), cifar100.TEST: bytes(3074)})
    wanted = WantedFile(cifar100.ARCHIVE.name, hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setattr(cifar100, "ARCHIVE", wanted)
    with serving(FileServer({wanted.name: content})) as server:
        listing = list_bundled(Cifar100Source(source="cifar100", mirrors=(server.url,)), tmp_path)
        with pytest.raises(WorkError, match="records of 3074 bytes, each starting with a label below 100"):
            list(listing.images)
