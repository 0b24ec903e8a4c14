"""The rows of a catalogue as compact arrays: what decides classes and splits, without names and places."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pixelmill.pipeline.datasets.catalogue import Catalogue, Part
from pixelmill.pipeline.datasets.contents import Contents, as_contents

PARTS: tuple[Part | None, ...] = ("train", "validation", "test", None)
_UNREAD = "0" * 64


@dataclass(frozen=True)
class CatalogueRows:
    """One entry for each row of the catalogue.

    Attributes:
        contents: SHA-256, bytes32 [images]; zeros where the image could not be read.
        is_read: Whether it could be read, bool [images].
        class_names: The names of all classes with images, in no particular order.
        classes: The index in `class_names`, int32 [images].
        parts: The index in `PARTS`, int8 [images].
    """

    contents: Contents
    is_read: npt.NDArray[np.bool_]
    class_names: tuple[str, ...]
    classes: npt.NDArray[np.int32]
    parts: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.classes)


def read_rows(catalogue: Catalogue) -> CatalogueRows:
    """Read the compact columns of a catalogue."""
    codes: dict[str, int] = {}
    part_codes = {part: code for code, part in enumerate(PARTS)}
    contents, is_read, classes, parts = [], [], [], []
    columns = ["sha256", "class_name", "part"]
    with pq.ParquetFile(catalogue.path) as file:
        for batch in file.iter_batches(columns=columns):
            sha256, names, given = (batch.column(name) for name in columns)
            is_read.append(sha256.is_valid().to_numpy(zero_copy_only=False))
            contents.append(as_contents(sha256.fill_null(_UNREAD)))
            encoded = names.dictionary_encode()
            local = [codes.setdefault(name, len(codes)) for name in encoded.dictionary.to_pylist()]
            classes.append(np.array(local, np.int32)[encoded.indices.to_numpy()])
            encoded = given.fill_null("").dictionary_encode()
            local = [part_codes[name or None] for name in encoded.dictionary.to_pylist()]
            parts.append(np.array(local, np.int8)[encoded.indices.to_numpy()])
    if not classes:
        return CatalogueRows(
            np.empty(0, "S32"), np.empty(0, np.bool_), (), np.empty(0, np.int32), np.empty(0, np.int8)
        )
    return CatalogueRows(
        np.concatenate(contents),
        np.concatenate(is_read),
        tuple(codes),
        np.concatenate(classes),
        np.concatenate(parts),
    )


def read_strings(catalogue: Catalogue, columns: Sequence[str], chosen: npt.NDArray[np.int64]) -> pa.Table:
    """Columns of chosen rows of a catalogue, in the order of `chosen`."""
    table = pq.read_table(catalogue.path, columns=list(columns))
    if len(chosen) == len(table) and (np.diff(chosen, prepend=-1) == 1).all():
        return table  # Without a copy, as all rows of a dataset are large.
    return table.combine_chunks().take(pa.array(chosen))
