"""The data of a recipe: `downloading` gives a `RawDataset`, `preparation` a `PreparedDataset`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.artifacts import read_json
from pipeline.images import Pixels

TEST_ORIGINS_FILE = "test_origins.json"
SplitName = Literal["train", "validation", "test"]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RawDataset:
    """A dataset as its source gives it.

    Attributes:
        source: The source's name in the recipe.
        files: Paths by the names the source gives them; empty where a package bundles the data.
        fingerprint: SHA-256 over the content of all of it, in hexadecimal.
        provenance: Where it came from, in words.
    """

    source: str
    files: dict[str, Path]
    fingerprint: str
    provenance: str


@dataclass(frozen=True)
class Images:
    """`pixels`: uint8 [images, height, width, channels]; `labels`: int64 [images], class indices."""

    pixels: Pixels
    labels: Labels


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset cut into three splits of arrays on disk, every image already a tensor."""

    folder: Path
    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    counts: dict[str, int]

    def split(self, name: SplitName) -> Images:
        """Map a split into memory; nothing is read before it is used."""
        pixels = np.load(self.folder / f"{name}_images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(self.folder / f"{name}_labels.npy", allow_pickle=False)
        return Images(pixels, labels)

    def test_origins(self) -> list[str]:
        """Where each test image came from: the path of its file, or what its source calls it."""
        origins: list[str] = read_json(self.folder / TEST_ORIGINS_FILE)
        return origins

    @staticmethod
    def from_manifest(folder: Path, manifest: dict[str, Any]) -> "PreparedDataset":
        """The dataset that a folder's manifest describes."""
        return PreparedDataset(
            folder,
            manifest["name"],
            manifest["fingerprint"],
            tuple(manifest["class_names"]),
            manifest["counts"],
        )
