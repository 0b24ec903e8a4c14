"""The parts of a prediction table: Parquet files that record which shard they belong to."""

import base64
import io
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.artifacts import opened_for_reading, replacing
from pixelmill.pipeline.predictions.columns import TableLayout, schema
from pixelmill.pipeline.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa

_SHARD_KEY = b"pixelmill.listing"
_RUN_KEY = b"pixelmill.run"
_FILES_KEY = "pixelmill.files"
_IMAGES_KEY = "pixelmill.images"
_PART = re.compile(r"part-\d{5,}\.parquet")
_64_BITS = (1 << 64) - 1
_DIFFERENT_IN_EVERY_ROW = ("image_path", "image_sha256", "probability", "top_probabilities")
FileFacts = npt.NDArray[np.int64]
USE_THREADS = False
"""Whether Arrow uses threads to read and to prefetch. Its threads may outlive a read, and abort a command
that exits while they release its Python file (apache/arrow#34314)."""


def part_name(index: int) -> str:
    """The file name of a part."""
    return f"part-{index:05d}.parquet"


def is_part(name: str) -> bool:
    """Whether a file name is the name of a part."""
    return _PART.fullmatch(name) is not None


def file_facts(files: Sequence[tuple[int, int, int]]) -> FileFacts:
    """Size, modification time in nanoseconds and inode of files, truncated to 64 bits; int64 [files, 3]."""
    with suppress(OverflowError):
        return np.array(files, np.int64).reshape(-1, 3)
    # Some file systems use inodes above 2**63, and a wrong clock can date files beyond the year 2262.
    low = [[value & _64_BITS for value in file] for file in files]
    return np.array(low, np.uint64).view(np.int64).reshape(-1, 3)


class PartWriter:
    """Writes the rows of one part, one row group at a time.

    Attributes:
        image_sample: The measures of some of its images, as text; stored in the file unless it is empty.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._files: list[FileFacts] = []
        self.image_sample = ""

    def write(self, rows: "pa.Table", files: FileFacts) -> None:
        """Write a row group, with the `file_facts` of its images."""
        self._writer.write_table(rows, row_group_size=max(len(rows), 1))
        self._files.append(files)

    def finish(self) -> None:
        """Store the sample, and the facts of all files for a later run with `trust_mtime`, as metadata."""
        content = zlib.compress(np.concatenate(self._files).T.tobytes(), level=1) if self._files else b""
        metadata = {_FILES_KEY: base64.b64encode(content).decode()}
        if self.image_sample:
            metadata[_IMAGES_KEY] = self.image_sample
        self._writer.add_key_value_metadata(metadata)


@contextmanager
def writing_part(
    path: Location, layout: TableLayout, shard_key: str, run_id: str = ""
) -> Iterator[PartWriter]:
    """Write one part atomically.

    Args:
        path: The file of the part.
        layout: The columns of the table.
        shard_key: The hash of the run and of the shard's listing; stored in the file, so that a resumed run
            can check whether the part is still valid.
        run_id: The ID of the run; stored in the file, so that a reader can detect parts from another run.
    """
    import pyarrow.parquet as pq

    columns = schema(layout).with_metadata({_SHARD_KEY: shard_key.encode(), _RUN_KEY: run_id.encode()})
    options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    with replacing(path) as temporary, pq.ParquetWriter(temporary, columns, **options) as writer:
        part = PartWriter(writer)
        yield part
        part.finish()


def join_parts(
    parts: Sequence[Location], path: Location, layout: TableLayout, run_id: str, image_sample: str
) -> None:
    """Write the rows of several parts to one, which may be one of them, with a row group in memory at a time.

    Args:
        parts: The parts, in the order of the rows.
        path: The file to write.
        layout: The columns of the table.
        run_id: The ID of the run.
        image_sample: The measures of the images of all parts, as text.
    """
    with writing_part(path, layout, "", run_id) as whole:
        for part in parts:
            facts, start = read_file_facts(part), 0
            for rows in read_row_groups(part):
                whole.write(rows.replace_schema_metadata(None), facts[start : start + len(rows)])
                start += len(rows)
        whole.image_sample = image_sample


def part_shard_key(path: Location) -> str | None:
    """The hash of the run and of the listing of a part; None if there is no intact part."""
    return _metadata_of(path, _SHARD_KEY)


def part_run_id(path: Location) -> str | None:
    """The ID of the run that wrote a part; None if there is no intact part or it has no ID."""
    return _metadata_of(path, _RUN_KEY)


def _metadata_of(path: Location, key: bytes) -> str | None:
    import pyarrow.parquet as pq

    try:
        with opened_for_reading(path) as file:
            metadata = pq.read_schema(file).metadata or {}
        return metadata.get(key, b"").decode() or None
    except (OSError, ValueError, NotImplementedError):  # Arrow raises these on damaged bytes.
        return None


def read_part(source: Location | bytes, columns: Sequence[str] | None = None) -> "pa.Table":
    """Read some or all columns of a part, from its file or its bytes."""
    import pyarrow.parquet as pq

    with _opened(source) as file:
        part = pq.ParquetFile(file, pre_buffer=USE_THREADS, page_checksum_verification=True)
        return part.read(columns=columns and list(columns), use_threads=USE_THREADS)


@contextmanager
def _opened(source: Location | bytes) -> Iterator[Any]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    else:
        with opened_for_reading(source) as file:
            yield file


def read_if_intact(path: Location) -> "pa.Table | None":
    """All rows of a part; None if it cannot be read or its checksums do not match."""
    try:
        return read_part(path)
    except (OSError, ValueError):  # Arrow raises these on damaged bytes.
        return None


def is_intact(path: Location) -> bool:
    """Whether a part can be read and its checksums match."""
    return read_if_intact(path) is not None


def read_row_groups(path: Location) -> "Iterator[pa.Table]":
    """The rows of one part, one row group at a time."""
    with opened_for_reading(path) as file:
        yield from row_groups_of(file)


def row_groups_of(file: Any, columns: Collection[str] | None = None) -> "Iterator[pa.Table]":
    """The rows of an open part, one row group at a time.

    Args:
        file: The part, open for reading.
        columns: The columns to read, of those that it has; None for all.
    """
    import pyarrow.parquet as pq

    part = pq.ParquetFile(file, pre_buffer=USE_THREADS)
    names = [name for name in part.schema_arrow.names if columns is None or name in columns]
    for group in range(part.num_row_groups):
        yield part.read_row_group(group, columns=names, use_threads=USE_THREADS)


def read_image_sample(source: Location | bytes) -> str:
    """The measures of some of the images of a part, as text; empty if it has none."""
    import pyarrow.parquet as pq

    with _opened(source) as file:
        found: bytes = (pq.read_metadata(file).metadata or {}).get(_IMAGES_KEY.encode(), b"")
    return found.decode()


def read_file_facts(source: Location | bytes) -> FileFacts:
    """Size, modification time in nanoseconds and inode of the file of each row; int64 [rows, 3]."""
    import pyarrow.parquet as pq

    with _opened(source) as file:
        content = (pq.read_metadata(file).metadata or {}).get(_FILES_KEY.encode(), b"")
    values = np.frombuffer(zlib.decompress(base64.b64decode(content)), np.int64) if content else np.zeros(0)
    return values.astype(np.int64).reshape(3, -1).T
