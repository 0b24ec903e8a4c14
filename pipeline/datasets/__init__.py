"""The data of a recipe: `download` returns a `RawDataset`, `preparation` a `PreparedDataset`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.images import Pixels

NAMES_FILE = "names.json"
TEST_ORIGINS_FILE = "test_origins.json"
SplitName = Literal["train", "validation", "test"]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RawDataset:
    """A dataset as provided by its source.

    Attributes:
        source: The name of the source in the recipe.
        files: Paths by file name; empty if a package bundles the data.
        fingerprint: SHA-256 of the content, in hexadecimal.
        provenance: A description of where the data came from.
        names_sha256: SHA-256 of the file names, in hexadecimal; empty unless the source is a folder.
        warnings: Problems in the data that deserve attention, one line each.
        left_out: Number of files left out, by extension or reason.
    """

    source: str
    files: dict[str, Path]
    fingerprint: str
    provenance: str
    names_sha256: str = ""
    warnings: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Images:
    """`pixels`: uint8 [images, height, width, channels]; `labels`: int64 [images], class indices."""

    pixels: Pixels
    labels: Labels


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset as arrays on disk, divided into three splits.

    Attributes:
        folder: The folder of the arrays.
        name: The name of the source in the recipe.
        fingerprint: The fingerprint of the raw dataset.
        class_names: In the order of the labels.
        counts: Number of images in each split.
        warnings: Problems in the data that deserve attention, one line each.
        left_out: Number of files of a dataset folder left out, by extension or reason.
    """

    folder: Path
    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    counts: dict[str, int]
    warnings: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    def split(self, name: SplitName) -> Images:
        """Open a split; the pixels are memory-mapped and read when they are used."""
        pixels = np.load(self.folder / f"{name}_images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(self.folder / f"{name}_labels.npy", allow_pickle=False)
        return Images(pixels, labels)

    def names(self, split: SplitName) -> list[str]:
        """The name of each image of a split: its path relative to the dataset or test folder, as text
        (`file_names.unescape` restores the file name), or its index in a bundled dataset.
        """
        names: dict[str, list[str]] = read_json(self.folder / NAMES_FILE)
        return names[split]

    def test_origins(self) -> list[str]:
        """The full path of each test image, escaped as in `names`, or its name in a bundled dataset."""
        origins: list[str] = read_json(self.folder / TEST_ORIGINS_FILE)
        return origins

    @staticmethod
    def from_manifest(folder: Path, manifest: dict[str, Any]) -> "PreparedDataset":
        """The dataset described by the manifest of a folder."""
        return PreparedDataset(
            folder,
            manifest["name"],
            manifest["fingerprint"],
            tuple(manifest["class_names"]),
            manifest["counts"],
            tuple(manifest.get("warnings", ())),
            manifest.get("left_out", {}),
        )
