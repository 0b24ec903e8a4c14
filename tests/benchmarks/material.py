"""The data of the benchmarks: JPEG files made from bundled pictures, and models with random weights."""

import os
import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from pixelmill.pipeline.artifacts import MANIFEST, publishing, write_json
from pixelmill.pipeline.bundles import BASELINE_FILE, LABELS_FILE, MODEL_FILE, ONNX_FILE, PREPROCESSING_FILE
from pixelmill.pipeline.bundles.metadata import scoring_metadata
from pixelmill.pipeline.bundles.preprocessing import describe_preprocessing
from pixelmill.pipeline.config import ExportSpec, ImageSpec
from pixelmill.pipeline.drift.counts import CONFIDENCE_BINS, PredictionCounts
from pixelmill.pipeline.layers import Layer, ModelSpec
from pixelmill.pipeline.layers.activation import Activation, Softmax
from pixelmill.pipeline.layers.convolution import Convolution
from pixelmill.pipeline.layers.dense import Dense
from pixelmill.pipeline.layers.normalization import BatchNormalization
from pixelmill.pipeline.layers.pooling import GlobalPooling, Pooling
from pixelmill.pipeline.processes import run_in_spawned_process, spawned_pool
from pixelmill.pipeline.resources import processor_limit

CLASSES = 10


def _block(filters: int, stride: int = 1, kernel_size: int = 3) -> list[Layer]:
    return [
        Convolution(layer="convolution", filters=filters, kernel_size=kernel_size, stride=stride),
        BatchNormalization(layer="batch_normalization"),
        Activation(layer="activation"),
    ]


def _network(*blocks: list[Layer]) -> ModelSpec:
    end: list[Layer] = [
        GlobalPooling(layer="global_average_pooling"),
        Dense(layer="dense", units="classes"),
        Softmax(layer="softmax"),
    ]
    return ModelSpec(layers=(*(layer for block in blocks for layer in block), *end))


_HALVE: list[Layer] = [Pooling(layer="max_pooling")]


@dataclass(frozen=True)
class Kind:
    """A kind of images: size, JPEG quality, network, and the fastest batch size for one core."""

    name: str
    width: int
    height: int
    quality: int
    image: ImageSpec
    model: ModelSpec
    best_batch: int


@dataclass(frozen=True)
class Workload:
    """The files of a kind, in one subfolder per class, and the bundle to score them with."""

    kind: Kind
    images: Path
    bundle: Path

    def files(self) -> list[str]:
        """The names of all images, in order."""
        return sorted(map(str, self.images.rglob("*.jpg")))


SMALL = Kind(
    name="small",
    width=32,
    height=32,
    quality=90,
    image=ImageSpec(height=32, width=32, channels=3),
    model=_network(_block(32), _block(32), _HALVE, _block(64), _HALVE, _block(96, kernel_size=1)),
    best_batch=16,
)
PHOTOGRAPHS = Kind(
    name="photographs",
    width=1600,
    height=1200,
    quality=85,
    image=ImageSpec(height=224, width=224, channels=3),
    model=_network(_block(32, 2), _block(64, 2), _block(128, 2), _block(128), _block(128)),
    best_batch=8,
)


def prepare(kind: Kind, images: int, folder: Path) -> Workload:
    """Create the images and the bundle of a kind, or reuse those of an earlier run in `folder`."""
    workload = Workload(kind, write_images(kind, images, folder), folder / f"{kind.name}-model")
    if not (workload.bundle / MANIFEST).exists():
        run_in_spawned_process(_publish_bundle, kind, workload.bundle)
    # Read the files once, so that every contender reads them from the page cache.
    for file in workload.files():
        Path(file).read_bytes()
    return workload


def write_images(kind: Kind, images: int, folder: Path) -> Path:
    """Create the images of a kind, or reuse those of an earlier run in `folder`."""
    written = folder / f"{kind.name}-{images}"
    if not written.exists():
        partial = folder / f"{kind.name}-{images}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with spawned_pool(processor_limit().count) as pool:
            made = [
                pool.submit(_write_images, kind, partial / f"class_{number}", number, images)
                for number in range(CLASSES)
            ]
            for future in made:
                future.result()
        partial.rename(written)
    return written


def forget(files: Iterable[str]) -> None:
    """Drop files from the page cache, so that they are read from the disk."""
    os.sync()
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _write_images(kind: Kind, folder: Path, first: int, images: int) -> None:
    """Write every tenth image, from `first` on."""
    folder.mkdir(parents=True)
    photographs = _bundled_photographs()
    chance = random.Random(first)
    for number in range(first, images, CLASSES):
        image = _vary(chance.choice(photographs), kind, chance)
        image.save(folder / f"{number:06d}.jpg", quality=kind.quality)


def _vary(photograph: Image.Image, kind: Kind, chance: random.Random) -> Image.Image:
    """Randomly crop, mirror, lighten or darken, and resize."""
    scale = chance.uniform(0.4, 1) * min(photograph.width / kind.width, photograph.height / kind.height)
    width, height = scale * kind.width, scale * kind.height
    left = chance.uniform(0, photograph.width - width)
    top = chance.uniform(0, photograph.height - height)
    image = photograph.resize(
        (kind.width, kind.height),
        Image.Resampling.BICUBIC,
        box=(left, top, left + width, top + height),
    )
    if chance.random() < 0.5:
        image = ImageOps.mirror(image)
    return ImageEnhance.Brightness(image).enhance(chance.uniform(0.7, 1.3))


def _bundled_photographs() -> list[Image.Image]:
    """Pictures included in scikit-image and scikit-learn, so that nothing is downloaded."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry")
    arrays = [*(getattr(data, name)() for name in names), *load_sample_images().images]
    return [Image.fromarray(np.asarray(array, np.uint8)) for array in arrays]


def _publish_bundle(kind: Kind, folder: Path) -> None:
    """Create a model and export it like a retraining run, without training."""
    from pixelmill.pipeline.export.draft import write_onnx
    from pixelmill.pipeline.training.devices import choose_device, import_tensorflow
    from pixelmill.pipeline.training.network import build_network

    import_tensorflow()
    choose_device("cpu")
    import keras

    keras.utils.set_random_seed(0)
    even = PredictionCounts(np.ones(CLASSES, np.int64), np.ones(CONFIDENCE_BINS, np.int64))
    with publishing(folder, {"kind": "model-bundle", "name": kind.name, "version": 1}) as staging:
        network = build_network(kind.model, kind.image, CLASSES)
        network.save(staging / MODEL_FILE)
        preprocessing = describe_preprocessing(kind.image)
        class_names = tuple(f"class_{number}" for number in range(CLASSES))
        metadata = scoring_metadata(class_names, preprocessing)
        (staging / ONNX_FILE).write_bytes(write_onnx(network, kind.image, ExportSpec(), metadata))
        write_json(staging / LABELS_FILE, class_names)
        write_json(staging / PREPROCESSING_FILE, preprocessing)
        write_json(staging / BASELINE_FILE, even.to_baseline())
