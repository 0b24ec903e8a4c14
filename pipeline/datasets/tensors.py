"""The tensors of images on disk: each content is decoded once for all datasets with the same image settings.

`tensors/KEY/` of a store holds numbered segments, to which nothing is ever added: the tensors (`00000001.npy`
or `.jpeg`) and their index (`00000001.parquet`), which is written last.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pixelmill.pipeline.artifacts import canonical_json, sha256_of
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.datasets.contents import Contents, as_arrow
from pixelmill.pipeline.datasets.measures import Measures
from pixelmill.pipeline.datasets.segments import SEGMENT_FORMATS, Numbers, SegmentFormat, SegmentReader
from pixelmill.pipeline.datasets.tensor_index import INDEX_SUFFIX, empty_index, read_facts, read_index
from pixelmill.pipeline.datasets.tensor_lock import read_while_alive, reading
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import DECODER_VERSION, Pixels

_FORMAT = 1
_ROWS_AT_ONCE = 64
_OPEN_SEGMENTS = 4096


@dataclass(frozen=True)
class Located:
    """Where the tensors of some contents are.

    Attributes:
        segments: int32 [contents]; the number of the segment, 0 where the content is not in the store.
        rows: int32 [contents]; the row in the segment, -1 where the content is absent or no tensor.
        failures: Why a content is no tensor, by its position.
    """

    segments: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    failures: Mapping[int, str]


class TensorStore:
    """The tensors of one store for one image spec.

    Args:
        store: The local folder for the working files of a store.
        spec: The shape of the tensors, and how they are kept.
        name: The name of the folder; by default that of tensors that are decoded now.
    """

    def __init__(self, store: Path, spec: ImageSpec, name: str | None = None) -> None:
        self.spec = spec
        self.format: SegmentFormat = SEGMENT_FORMATS[spec.storage]
        self.folder = store / "tensors" / (name or _key(spec))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep segments that no prepared dataset names yet from being removed during the block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with reading(self.folder):
            yield

    def segment_numbers(self) -> list[int]:
        """The numbers of all finished segments, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.stem) for path in self.folder.glob(f"[0-9]*{INDEX_SUFFIX}"))

    def data_path(self, number: int) -> Path:
        """The file of a segment's tensors."""
        return self.folder / f"{number:08d}{self.format.suffix}"

    def index_path(self, number: int) -> Path:
        """The index of a segment: one row for each content, with the measures of its tensor."""
        return self.folder / f"{number:08d}{INDEX_SUFFIX}"

    def read_index(self, columns: Sequence[str], numbers: Sequence[int] | None = None) -> pa.Table:
        """Columns of the indexes of segments, all of them by default, with the column `segment` (int32).

        The columns are `sha256` (32 bytes), `row`, `width`, `height`, `offset`, `size`, the fields of
        `Measures`, and `error`, which is null unless the content is no tensor.
        """
        numbers = self.segment_numbers() if numbers is None else numbers
        tables = []
        for number in numbers:
            table = read_index(self.index_path(number), columns)
            segment = pa.array(np.full(len(table), number, np.int32))
            tables.append(table.append_column("segment", segment))
        return pa.concat_tables(tables) if tables else empty_index(columns)

    def locate(self, contents: Contents) -> Located:
        """Find the tensors of contents."""
        index = self.read_index(["sha256", "row", "error"])
        found = pc.index_in(as_arrow(contents), value_set=index["sha256"].combine_chunks())
        places = found.fill_null(-1).to_numpy(zero_copy_only=False)
        is_known = places >= 0
        segments = np.zeros(len(contents), np.int32)
        rows = np.full(len(contents), -1, np.int32)
        segments[is_known] = index["segment"].to_numpy()[places[is_known]]
        rows[is_known] = index["row"].to_numpy()[places[is_known]]
        failed = np.flatnonzero(is_known & (rows < 0))
        errors = index["error"].take(pa.array(places[failed])).to_pylist()
        return Located(segments, rows, dict(zip(failed.tolist(), errors, strict=True)))

    def measures(self, contents: Contents) -> pa.Table:
        """`width`, `height` (of the file) and the fields of `Measures`, one row for each content.

        Raises:
            KeyError: A content is not in the store.
        """
        columns = ["width", "height", *Measures._fields]
        index = self.read_index(["sha256", *columns])
        places = pc.index_in(as_arrow(contents), value_set=index["sha256"].combine_chunks())
        if places.null_count:
            raise KeyError(f"{places.null_count} contents are not in {self.folder}")
        return index.select(columns).take(places)

    def open(self, segments: npt.NDArray[np.int32], rows: npt.NDArray[np.int32]) -> "StoredTensors":
        """The tensors at these places."""
        return StoredTensors(self, segments, rows)

    def describe(self, numbers: Sequence[int]) -> dict[str, dict[str, object]]:
        """The size and SHA-256 of the tensors of segments, by number."""
        return {str(number): read_facts(self.index_path(number)) for number in numbers}

    def is_complete(self, described: Mapping[str, Mapping[str, object]]) -> bool:
        """Whether all of these segments are in the store."""
        return all(self.index_path(int(number)).is_file() for number in described)

    def verify(self, described: Mapping[str, Mapping[str, object]], read_all: bool = False) -> None:
        """Compare segments with their description.

        Args:
            described: The result of `describe`.
            read_all: Whether to read the tensors and compare their SHA-256; otherwise only their size.

        Raises:
            WorkError: A file is missing or has changed.
        """
        for number, facts in described.items():
            path = self.data_path(int(number))
            found: dict[str, object] = {"size": path.stat().st_size if path.is_file() else None}
            if read_all and found["size"] == facts["size"]:
                found["sha256"] = sha256_of(path)
            for name, value in found.items():
                if value != facts[name]:
                    raise WorkError(
                        f"{path} has {name} {value}",
                        f"{facts[name]}, as when it was written",
                        f"Remove {self.folder}; the images will be prepared again.",
                    )


class StoredTensors:
    """Tensors of any segments as one array that is read when it is used.

    It is indexed like a NumPy array along its first dimension, by integers, slices and arrays of integers or
    booleans; what is indexed is read into memory. As long as it is used, no segment is removed.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, store: TensorStore, segments: npt.NDArray[np.int32], rows: npt.NDArray[np.int32]
    ) -> None:
        self._store, self._segments, self._rows = store, segments, rows
        if store.folder.is_dir():
            read_while_alive(self, store.folder)
        # Not shared, so that the files are closed with the array.
        self._reader = lru_cache(maxsize=_OPEN_SEGMENTS)(lambda number: _open(store, number))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(images, height, width, channels)."""
        spec = self._store.spec
        return len(self), spec.height, spec.width, spec.channels

    @property
    def nbytes(self) -> int:
        """The number of bytes in memory, were all of it read."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: Any) -> Pixels:
        if isinstance(key, int | np.integer):
            chosen = np.arange(len(self))[key : key + 1 or None]
            if not len(chosen):
                raise IndexError(f"index {key} of {len(self)} images")
            pixels: Pixels = self._read(chosen)[0]
            return pixels
        if isinstance(key, slice):
            return self._read(np.arange(*key.indices(len(self))))
        return self._read(np.arange(len(self))[key])

    def __iter__(self) -> Iterator[Pixels]:
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield from self[start : start + _ROWS_AT_ONCE]

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> "np.ndarray[Any, Any]":
        return self[:].astype(dtype or np.uint8, copy=False)

    def _read(self, chosen: Numbers) -> Pixels:
        segments, rows = self._segments[chosen], self._rows[chosen].astype(np.int64)
        present = np.unique(segments)
        if len(present) == 1:
            return self._reader(int(present[0])).read(rows)
        pixels = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        order = np.argsort(segments, kind="stable")
        for part in np.split(order, np.searchsorted(segments[order], present[1:])):
            if len(part):
                pixels[part] = self._reader(int(segments[part[0]])).read(rows[part])
        return pixels


def _key(spec: ImageSpec) -> str:
    depends_on = {
        "format": _FORMAT,
        "decoder": DECODER_VERSION,
        "image": spec.model_dump(),
        "measures": Measures._fields,
    }
    return hashlib.sha256(canonical_json(depends_on).encode()).hexdigest()[:16]


def _open(store: TensorStore, number: int) -> SegmentReader:
    index = store.read_index(["row", "offset", "size"], [number])
    kept = index.filter(pc.greater_equal(index["row"], 0)).sort_by("row")
    rows = kept["row"].to_numpy()
    count = int(rows[-1]) + 1 if len(rows) else 0
    offsets, sizes = np.zeros(count, np.int64), np.zeros(count, np.int64)
    offsets[rows], sizes[rows] = kept["offset"].to_numpy(), kept["size"].to_numpy()
    return store.format.open(store.data_path(number), offsets, sizes, store.spec)
