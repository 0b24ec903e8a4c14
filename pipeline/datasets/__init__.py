"""The data of a recipe: `downloading` gives a `RawDataset`, `preparation` a `PreparedDataset`."""

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
    """A dataset as its source gives it.

    Attributes:
        source: The source's name in the recipe.
        files: Paths by the names the source gives them; empty where a package bundles the data.
        fingerprint: SHA-256 over the content of all of it, in hexadecimal.
        provenance: Where it came from, in words.
        names_sha256: SHA-256 over the names of its files, in hexadecimal; empty where it is no folder.
        warnings: What a person should look at in the data, a line each.
        left_out: How many files were left out, by extension or reason.
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
    """A dataset cut into three splits of arrays on disk, every image already a tensor.

    Attributes:
        folder: Where the arrays are.
        name: The source's name in the recipe.
        fingerprint: Of the raw dataset.
        class_names: In the order of the labels.
        counts: How many images each split has.
        warnings: What a person should look at in the data, a line each.
        left_out: How many files of a dataset folder were left out, by extension or reason.
    """

    folder: Path
    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    counts: dict[str, int]
    warnings: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    def split(self, name: SplitName) -> Images:
        """Map a split into memory; nothing is read before it is used."""
        pixels = np.load(self.folder / f"{name}_images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(self.folder / f"{name}_labels.npy", allow_pickle=False)
        return Images(pixels, labels)

    def names(self, split: SplitName) -> list[str]:
        """What each image of a split is called: its path below the dataset folder, or below the test folder,
        as text (`file_names.unescape` gives the file's name back), or its place in a bundled dataset.
        """
        names: dict[str, list[str]] = read_json(self.folder / NAMES_FILE)
        return names[split]

    def test_origins(self) -> list[str]:
        """Where each test image came from: the whole path of its file as text, as in `names`, or its name."""
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
            tuple(manifest.get("warnings", ())),
            manifest.get("left_out", {}),
        )
