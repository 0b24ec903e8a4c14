"""The images of a raw dataset before it is split, each loaded on demand."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.datasets import Images, RawDataset, cifar10, digits, fashion_mnist, mnist
from pixelmill.pipeline.datasets.duplicates import LabelledFile
from pixelmill.pipeline.datasets.folders import read_index
from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding.files import read_file
from pixelmill.pipeline.decoding.guard import decode_guarded
from pixelmill.pipeline.decoding.pool import map_guarded
from pixelmill.pipeline.file_names import escape_path
from pixelmill.pipeline.images import FailureCode, ImageFailure, Pixels, fit_array
from pixelmill.pipeline.resources import processor_limit


@dataclass(frozen=True)
class Example:
    """An image that is loaded on demand.

    Attributes:
        label: The class index.
        sha256: SHA-256 of the content, in hexadecimal.
        load: Returns the tensor, uint8 [height, width, channels].
        origin: The full path, escaped, or the name of an image that is not a file.
        name: The path relative to the dataset folder, escaped.
    """

    label: int
    sha256: str
    load: Callable[[ImageSpec], Pixels]
    origin: str
    name: str


ClassesAndExamples = tuple[tuple[str, ...], list[Example], list[Example]]


def read_examples(raw: RawDataset) -> ClassesAndExamples:
    """The class names of a dataset, its training examples, and its test examples, if it has any."""
    return _READERS[raw.source](raw)


def load_all(examples: Sequence[Example], spec: ImageSpec) -> Iterator[Pixels | ImageFailure]:
    """The tensor of each example. Files are not trusted, so they are decoded in separate processes."""
    if any(isinstance(example.load, _FileLoader) for example in examples):
        loads = (example.load for example in examples)
        return map_guarded(partial(_load, spec), loads, processor_limit().count)
    return (example.load(spec) for example in examples)


def _load(spec: ImageSpec, load: Callable[[ImageSpec], Pixels]) -> Pixels:
    return load(spec)


def _read_digits(raw: RawDataset) -> ClassesAndExamples:
    return digits.CLASS_NAMES, _examples(digits.read_digits(), "digit"), []


def _read_mnist(raw: RawDataset) -> ClassesAndExamples:
    train, test = mnist.read_mnist(raw)
    return mnist.CLASS_NAMES, _examples(train, "train"), _examples(test, "test")


def _read_fashion_mnist(raw: RawDataset) -> ClassesAndExamples:
    train, test = fashion_mnist.read_fashion_mnist(raw)
    return fashion_mnist.CLASS_NAMES, _examples(train, "train"), _examples(test, "test")


def _read_cifar10(raw: RawDataset) -> ClassesAndExamples:
    train, test = cifar10.read_cifar10(raw)
    return cifar10.CLASS_NAMES, _examples(train, "train"), _examples(test, "test")


def _read_folder(raw: RawDataset) -> ClassesAndExamples:
    files = read_index(raw)
    class_names = tuple(dict.fromkeys(file.class_name for file in files))
    parts: dict[str, list[Example]] = {"train": [], "test": []}
    for file in files:
        label = class_names.index(file.class_name)
        origin = escape_path(str(file.path))
        parts[file.part].append(Example(label, file.sha256, _FileLoader(file), origin, file.name))
    return class_names, parts["train"], parts["test"]


_READERS: dict[str, Callable[[RawDataset], ClassesAndExamples]] = {
    "digits": _read_digits,
    "mnist": _read_mnist,
    "fashion-mnist": _read_fashion_mnist,
    "cifar10": _read_cifar10,
    "folder": _read_folder,
}


@dataclass(frozen=True)
class _FileLoader:
    file: LabelledFile

    def __call__(self, spec: ImageSpec) -> Pixels:
        data = read_file(self.file.path)
        if hashlib.sha256(data).hexdigest() != self.file.sha256:
            raise ImageFailure(FailureCode.UNREADABLE, "changed after it was listed")
        return decode_guarded(data, spec, DecodingLimits()).pixels


@dataclass(frozen=True)
class _ArrayLoader:
    pixels: Pixels

    def __call__(self, spec: ImageSpec) -> Pixels:
        return fit_array(self.pixels, spec)


def _examples(images: Images, title: str) -> list[Example]:
    numbered = enumerate(zip(images.pixels, images.labels, strict=True))
    return [
        Example(int(label), hashlib.sha256(pixels).hexdigest(), _ArrayLoader(pixels), name, name)
        for name, pixels, label in ((f"{title} {index}", *image) for index, image in numbered)
    ]
