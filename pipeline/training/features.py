"""What the frozen part of a network makes of the images: computed once, and kept in the store.

`features/KEY/` of a store holds parts of some hundred images, which are written one by one, so that an
interrupted run goes on with the next; its manifest is written last. The key depends on everything that the
values depend on: the network and its weights, the image settings, the images, the packages.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.artifacts import (
    MANIFEST,
    canonical_json,
    describe_files,
    installed_packages,
    provenance,
    read_array,
    read_manifest,
    remove_folder,
    remove_leftovers,
    write_array,
    write_json,
)
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import Images, PreparedDataset, SplitName
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.training.backends import chosen_backend
from pixelmill.pipeline.training.input_pipeline import TrainingImages

FEATURES_FOLDER = "features"
_FORMAT = 1
_PART_IMAGES = 512
_BATCH = 64
_SPLITS: tuple[SplitName, ...] = ("train", "validation")
Values = npt.NDArray[np.float32]


class StoredFeatures:
    """The features of a split as one array that is read where it is used: float32 [images, ...].

    It is indexed along its first dimension by an integer, a slice or an array of integers.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, parts: Sequence[Values]) -> None:
        self._parts = parts
        self.shape = (sum(map(len, parts)), *parts[0].shape[1:])

    @property
    def nbytes(self) -> int:
        """The number of bytes in memory, were all of it read."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> Values:
        chosen = np.arange(len(self))[key]
        if chosen.ndim == 0:
            part, row = divmod(int(chosen), _PART_IMAGES)
            return np.asarray(self._parts[part][row])
        values = np.empty((len(chosen), *self.shape[1:]), np.float32)
        of_part = chosen // _PART_IMAGES
        for part in np.unique(of_part):
            is_here = of_part == part
            values[is_here] = self._parts[part][chosen[is_here] % _PART_IMAGES]
        return values

    def __iter__(self) -> Any:
        return (self[at] for at in range(len(self)))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Any:
        return self[:].astype(dtype or np.float32, copy=False)


def compute_features(body: Any, layers: int, dataset: PreparedDataset, recipe: Recipe) -> TrainingImages:
    """The output of the first layers of a network for the images to train and to validate on.

    Args:
        body: A Keras model from uint8 images to features, with its weights.
        layers: The number of layers of the recipe in it.
        dataset: The images; its store keeps the features.
        recipe: The recipe of the run.

    Returns:
        The labels, with float32 [images, ...] in place of pixels.
    """
    folder = dataset.folder.parent.parent / FEATURES_FOLDER / _key(body, layers, dataset, recipe)
    if _is_damaged(folder):
        remove_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    splits = {name: dataset.split(name) for name in _SPLITS}
    with progress("features", sum(len(images.labels) for images in splits.values()), "images") as advance:
        parts = {name: _compute(body, images, folder, name, advance) for name, images in splits.items()}
    if not (folder / MANIFEST).is_file():
        facts = {
            "kind": FEATURES_FOLDER,
            "dataset": dataset.folder.name,
            "weights_sha256": _hash_weights(body),
        }
        write_json(folder / MANIFEST, {**facts, **provenance(), "files": describe_files(folder)})
    os.utime(folder)  # `prune` removes what no run has used for long.
    return TrainingImages(*(Images(StoredFeatures(parts[name]), splits[name].labels) for name in _SPLITS))


def _compute(body: Any, images: Images, folder: Path, split: SplitName, advance: Any) -> list[Values]:
    shape = tuple(body.output_shape[1:])
    parts = []
    for number in range(math.ceil(len(images.labels) / _PART_IMAGES)):
        rows = slice(number * _PART_IMAGES, (number + 1) * _PART_IMAGES)
        path = folder / f"{split}-{number:05d}.npy"
        if not path.is_file():
            pixels = np.asarray(images.pixels[rows])
            batches = [
                np.asarray(body.predict_on_batch(pixels[first : first + _BATCH]), np.float32)
                for first in range(0, len(pixels), _BATCH)
            ]
            write_array(path, np.concatenate(batches).reshape(-1, *shape))
        parts.append(read_array(path))
        advance(len(parts[-1]), "")
    return parts


def _key(body: Any, layers: int, dataset: PreparedDataset, recipe: Recipe) -> str:
    import keras

    first = recipe.model.layers[0]
    depends_on = {
        "format": _FORMAT,
        # The weights count by their values, not by where they came from or which of them are trained later.
        "network": [
            layer.model_dump(mode="json", exclude={"weights", "frozen_layers", "frozen_normalization"})
            for layer in recipe.model.layers[:layers]
        ],
        "precision": keras.config.dtype_policy().name,
        "weights": _hash_weights(body),
        "image": recipe.image.model_dump(),
        "dataset": dataset.folder.name,  # The name contains the fingerprint of the data and its splits.
        "packages": installed_packages(),
        "backend": chosen_backend(),
    }
    key = hashlib.sha256(canonical_json(depends_on).encode()).hexdigest()[:16]
    return f"{getattr(first, 'name', first.layer)}-{key}"


def _hash_weights(body: Any) -> str:
    """The SHA-256 of the values of all weights, in hexadecimal."""
    digest = hashlib.sha256()
    for values in body.get_weights():
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _is_damaged(folder: Path) -> bool:
    """Whether a finished folder lacks a file, or has one of another size."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        files = read_manifest(folder)["files"]
    except PixelmillError:
        return True
    return any(
        not (folder / name).is_file() or (folder / name).stat().st_size != facts["size"]
        for name, facts in files.items()
    )
