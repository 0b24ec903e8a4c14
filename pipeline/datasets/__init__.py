"""The data of a recipe: `download` returns a `RawDataset`, `preparation` a `PreparedDataset`.

Arrow is imported where it is used, as the processes that decode do not need it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pixelmill.pipeline.artifacts import MANIFEST, read_manifest
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.datasets.catalogue import Catalogue
from pixelmill.pipeline.datasets.exclusions import Exclusions
from pixelmill.pipeline.datasets.images import Images, Labels, PixelArray
from pixelmill.pipeline.errors import PixelmillError

if TYPE_CHECKING:
    import pyarrow as pa

    from pixelmill.pipeline.datasets.tensors import TensorStore

__all__ = [
    "ROWS_FILE",
    "Images",
    "Labels",
    "PixelArray",
    "PreparedDataset",
    "RawDataset",
    "SplitName",
    "read_prepared",
]

ROWS_FILE = "images.parquet"
SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class RawDataset:
    """A dataset as provided by its source.

    Attributes:
        source: The name of the source in the recipe.
        catalogue: Every image with the hash of its content.
        class_names: The classes, in the order that the source or the recipe gives, else in natural order.
        fingerprint: SHA-256 of the contents with their classes, given splits and groups, in hexadecimal; it
            depends neither on names nor on the order.
        provenance: A description of where the data came from.
        names_sha256: SHA-256 of the names and other columns, in hexadecimal.
        warnings: Problems in the data that deserve attention, one line each.
        left_out: Number of files left out, by extension or reason.
        corrections: Number of corrected labels, by what was done; empty without a file of corrections.
        exclusions: The contents that are left out.
        excluded: Number of images left out because their content is excluded.
    """

    source: str
    catalogue: Catalogue
    class_names: tuple[str, ...]
    fingerprint: str
    provenance: str
    names_sha256: str
    warnings: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    corrections: Mapping[str, int] = field(default_factory=dict)
    exclusions: Exclusions = field(default_factory=Exclusions)
    excluded: int = 0


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset as tensors on disk, divided into three splits.

    Attributes:
        folder: The folder of `images.parquet`, which says where the tensors are.
        name: The name of the source in the recipe.
        fingerprint: The fingerprint of the raw dataset.
        class_names: In the order of the labels.
        counts: Number of images in each split.
        warnings: Problems in the data that deserve attention, one line each.
        left_out: Number of files of a dataset folder left out, by extension or reason.
        exclusions: The exclusion list that it was made with, and that none of its contents is in any split;
            empty without a list.
    """

    folder: Path
    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    counts: dict[str, int]
    warnings: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    exclusions: Mapping[str, Any] = field(default_factory=dict)

    def split(self, name: SplitName) -> Images:
        """Open a split; the pixels are read when they are used."""
        rows = self.rows(name, ["label", "segment", "row"])
        pixels = self.tensors().open(rows["segment"].to_numpy(), rows["row"].to_numpy())
        return Images(pixels, rows["label"].to_numpy().astype(np.int64))

    def rows(self, split: SplitName | None = None, columns: Sequence[str] | None = None) -> "pa.Table":
        """Columns of the images of a split, in the order of its tensors, or of all splits.

        The columns are `split`, `label` (the class index), `sha256` (hexadecimal), `group` (null without
        one), `name` (as text; `file_names.unescape` restores the file name), `origin` (the full path,
        escaped), `slice:NAME` for each further column of a table, and `segment` and `row` of the tensor.
        """
        import pyarrow.parquet as pq

        filters = None if split is None else [("split", "=", split)]
        return pq.read_table(self.folder / ROWS_FILE, columns=columns and list(columns), filters=filters)

    def names(self, split: SplitName) -> list[str]:
        """The name of each image of a split: its path relative to the dataset or test folder, as text
        (`file_names.unescape` restores the file name), or its index in a bundled dataset.
        """
        names: list[str] = self.rows(split, ["name"])["name"].to_pylist()
        return names

    def test_origins(self) -> list[str]:
        """The full path of each test image, escaped as in `names`, or its name in a bundled dataset."""
        origins: list[str] = self.rows("test", ["origin"])["origin"].to_pylist()
        return origins

    def tensors(self) -> "TensorStore":
        """The store that holds the tensors."""
        from pixelmill.pipeline.datasets.tensors import TensorStore

        manifest = read_manifest(self.folder)
        spec = ImageSpec.model_validate(manifest["tensor_spec"])
        return TensorStore(self.folder.parent.parent, spec, manifest["tensors"])

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
            manifest.get("exclusions", {}),
        )


def read_prepared(store: Path) -> dict[Path, dict[str, Any]]:
    """The manifests of all prepared datasets of a store, by folder; those of older formats are left out."""
    found = {}
    for path in sorted((store / "datasets").glob(f"*/{MANIFEST}")):
        try:
            manifest = read_manifest(path.parent)
        except PixelmillError:
            continue
        if "tensor_spec" in manifest:
            found[path.parent] = manifest
    return found
