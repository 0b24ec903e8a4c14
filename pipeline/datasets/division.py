"""Dividing the images of a dataset into splits, by their content and by what earlier runs decided."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pixelmill.pipeline.config.sources import DatasetSource, OwnImages
from pixelmill.pipeline.datasets.class_order import order_classes
from pixelmill.pipeline.datasets.contents import Contents, as_text
from pixelmill.pipeline.datasets.decisions import SPLITS, Decisions, Sides
from pixelmill.pipeline.datasets.ledger import ledger_size, settle_splits
from pixelmill.pipeline.datasets.near_duplicates import find_components, near_equal_across
from pixelmill.pipeline.datasets.splits import LEFT_OUT, Division, Fractions, Undivided, assign_splits
from pixelmill.pipeline.datasets.tensors import TensorStore
from pixelmill.pipeline.storage import Location


@dataclass(frozen=True)
class ModelHistory:
    """What earlier runs of a model decided.

    Attributes:
        ledger: The folder of the model's ledger of splits.
        class_names: The classes of the newest version, in the order of its outputs; empty without one.
    """

    ledger: Location
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class UsableImages:
    """The images that have a class and a tensor, with one entry for each.

    Attributes:
        contents: SHA-256, bytes32 [images].
        class_names: The classes in the order of the labels.
        labels: int64 [images].
        parts: The splits that the source assigns, int8 [images]; `OPEN` if it assigns none.
        strings: `group`, `name`, `origin`, and the columns `slice:NAME`.
        segments: The segment of each tensor, int32 [images].
        rows: The row of each tensor in its segment, int32 [images].
    """

    contents: Contents
    class_names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    parts: Sides
    strings: pa.Table
    segments: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]

    def names(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """The names of some images."""
        names: list[str] = self.strings["name"].take(pa.array(rows)).to_pylist()
        return names


def choose_classes(
    source: DatasetSource, found: Sequence[str], offered: tuple[str, ...], history: ModelHistory | None
) -> tuple[str, ...]:
    """The classes in the order of the labels.

    Args:
        source: The dataset of the recipe.
        found: The classes that have images.
        offered: The classes in the order of the source, or in natural order.
        history: What earlier runs decided.

    Raises:
        RequestError: `dataset.classes` does not fit the data or the newest version.
        GateRefused: A class of the newest version has no images.
    """
    known = history.class_names if history is not None else ()
    if not isinstance(source, OwnImages) or (source.classes is None and not known):
        return offered
    return order_classes(found, known, source.classes, allow_removed=source.allow_removed_classes)


def divide_images(
    images: UsableImages, source: DatasetSource, tensors: TensorStore, history: ModelHistory | None
) -> Division:
    """Assign each image to a split, and add what was decided to the model's ledger.

    The splits of bundled datasets, which do not grow, depend on nothing but their images.

    Raises:
        RequestError: There are no test images, and no share of them is given.
        WorkError: The ledger is damaged.
    """
    groups = images.strings["group"].combine_chunks().dictionary_encode().indices.fill_null(-1)
    group_of = groups.to_numpy(zero_copy_only=False).astype(np.int64)
    fractions = Fractions(getattr(source, "test_fraction", None), source.validation_fraction)
    compares = isinstance(source, OwnImages) and source.near_duplicates

    def decide(decided: Decisions) -> Division:
        settled = decided.sides_of(images.contents) >= 0
        components = _find_components(images, tensors, settled) if compares else None
        undivided = Undivided(
            images.contents, images.labels, images.names, images.parts, group_of, components
        )
        division = assign_splits(undivided, fractions, decided)
        alike = _near_equal_across(images, division, components) if components is not None else None
        return replace(division, warnings=(*division.warnings, alike)) if alike else division

    if history is None or not isinstance(source, OwnImages):
        return decide(Decisions.nothing())
    return settle_splits(history.ledger, decide)


def size_of_ledger(source: DatasetSource, history: ModelHistory | None) -> int:
    """The number of segments in the ledger that decides the splits of a dataset; 0 without one."""
    return ledger_size(history.ledger) if history is not None and isinstance(source, OwnImages) else 0


def tabulate_images(images: UsableImages, division: Division, *, is_ordered_by_content: bool) -> pa.Table:
    """The rows of `images.parquet`: splits one after the other, each in the order of training.

    Args:
        images: The images.
        division: Their splits; images without one are left out.
        is_ordered_by_content: Whether the order depends on the content and then the name, so that it is the
            same wherever the files are; otherwise it is that of the source.
    """
    table = pa.table(
        {
            "split": pa.array(SPLITS).take(pa.array(division.sides, mask=division.sides < 0)),
            "label": pa.array(images.labels.astype(np.int32)),
            "sha256": as_text(images.contents),
            "segment": pa.array(images.segments),
            "row": pa.array(images.rows),
        }
    )
    for name in images.strings.column_names:
        table = table.append_column(name, images.strings[name])
    kept = table.append_column("position", pc.index_in(table["split"], value_set=pa.array(SPLITS)))
    if kept["split"].null_count:
        kept = kept.filter(pc.is_valid(kept["split"]))
    # Sorting is stable, so the images of a bundled dataset stay in their order.
    keys = ["position", "sha256", "name"] if is_ordered_by_content else ["position"]
    order = pc.sort_indices(kept, sort_keys=[(key, "ascending") for key in keys])
    return kept.take(order).drop_columns(["position"])


def _near_equal_across(
    images: UsableImages, division: Division, components: npt.NDArray[np.int64]
) -> str | None:
    """A warning about near duplicates in the splits of the source; equal images have one already."""
    test = SPLITS.index("test")
    if not (images.parts == test).any():
        return None
    used = images.contents[(division.sides >= 0) & (division.sides != test)]
    is_equal = (division.sides == test) & np.isin(images.contents, used)
    return near_equal_across(components, np.where(is_equal, LEFT_OUT, division.sides), images.names)


def _find_components(
    images: UsableImages, tensors: TensorStore, settled: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """The near-duplicate component of each image, int64 [images]."""
    contents, first, content_of = np.unique(images.contents, return_index=True, return_inverse=True)
    hashes = tensors.measures(contents)["perceptual_hash"].to_numpy()
    pixels = tensors.open(images.segments[first], images.rows[first])
    found: npt.NDArray[np.int64] = find_components(hashes, pixels, settled=settled[first])[content_of]
    return found
