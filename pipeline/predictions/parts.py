"""The parts of a prediction table: Parquet files that know which listing they answer."""

import base64
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.artifacts import opened_for_reading, replacing
from pixelmill.pipeline.predictions.columns import TableLayout, schema

if TYPE_CHECKING:
    import pyarrow as pa

_ANSWER_KEY = b"pixelmill.listing"
_RUN_KEY = b"pixelmill.run"
_FILES_KEY = "pixelmill.files"
_PART = re.compile(r"part-\d{5,}\.parquet")
_64_BITS = (1 << 64) - 1
_DIFFERENT_IN_EVERY_ROW = ("image_path", "image_sha256", "probability", "top_probabilities")
FileFacts = npt.NDArray[np.int64]
USE_THREADS = False
"""Whether Arrow reads with threads, or ahead, which takes some too. They may outlive a read, and abort a
command that ends while they let go of its Python file (apache/arrow#34314)."""


def part_name(index: int) -> str:
    """The file name of one part of a table in Parquet."""
    return f"part-{index:05d}.parquet"


def is_part(name: str) -> bool:
    """Whether a file name is that of a part."""
    return _PART.fullmatch(name) is not None


def file_facts(files: Sequence[tuple[int, int, int]]) -> FileFacts:
    """Size, time of the last change and inode of files; of what is over 64 bits the lower ones are kept."""
    with suppress(OverflowError):
        return np.array(files, np.int64).reshape(-1, 3)
    # Some file systems number files from 2**63 on, and a clock that was wrong dates them to the year 2300.
    low = [[value & _64_BITS for value in file] for file in files]
    return np.array(low, np.uint64).view(np.int64).reshape(-1, 3)


class PartWriter:
    """Takes the rows of one part, a row group at a time."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._files: list[FileFacts] = []

    def write(self, rows: "pa.Table", files: FileFacts) -> None:
        """Add rows, and what the `file_facts` of their files are."""
        self._writer.write_table(rows, row_group_size=max(len(rows), 1))
        self._files.append(files)

    def finish(self) -> None:
        """Add what the rows were read from, for a later run that trusts it."""
        content = zlib.compress(np.concatenate(self._files).T.tobytes(), level=1) if self._files else b""
        self._writer.add_key_value_metadata({_FILES_KEY: base64.b64encode(content).decode()})


@contextmanager
def writing_part(path: Path, layout: TableLayout, answer_key: str, run_id: str = "") -> Iterator[PartWriter]:
    """Write one part, whole or not at all.

    Args:
        path: Its file.
        layout: Its columns.
        answer_key: The hash of the run and the listing that the rows answer; kept in the file, so that
            a later run knows whether the part still holds.
        run_id: Of the run; kept in the file, so that a reader can tell whose part it is.
    """
    import pyarrow.parquet as pq

    columns = schema(layout).with_metadata({_ANSWER_KEY: answer_key.encode(), _RUN_KEY: run_id.encode()})
    options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    with replacing(path) as temporary, pq.ParquetWriter(temporary, columns, **options) as writer:
        part = PartWriter(writer)
        yield part
        part.finish()


def part_answer_key(path: Path) -> str | None:
    """The hash of the run and listing that a part answers; None where there is no intact part."""
    return _metadata_of(path, _ANSWER_KEY)


def part_run_id(path: Path) -> str | None:
    """The run that a part is of; None where there is no intact part, or it does not say."""
    return _metadata_of(path, _RUN_KEY)


def _metadata_of(path: Path, key: bytes) -> str | None:
    import pyarrow.parquet as pq

    try:
        with opened_for_reading(path) as file:
            metadata = pq.read_schema(file).metadata or {}
        return metadata.get(key, b"").decode() or None
    except (OSError, ValueError, NotImplementedError):  # What Arrow raises on damaged bytes.
        return None


def read_part(source: Path | bytes, columns: Sequence[str] | None = None) -> "pa.Table":
    """Some columns of one part, or all; of its file, or of the bytes of it."""
    import pyarrow.parquet as pq

    with _opened(source) as file:
        part = pq.ParquetFile(file, pre_buffer=USE_THREADS, page_checksum_verification=True)
        return part.read(columns=columns and list(columns), use_threads=USE_THREADS)


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Any]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    else:
        with opened_for_reading(source) as file:
            yield file


def read_if_intact(path: Path) -> "pa.Table | None":
    """All of a part, or None where it cannot be read or does not hold what was written."""
    try:
        return read_part(path)
    except (OSError, ValueError):  # What Arrow raises on damaged bytes.
        return None


def is_intact(path: Path) -> bool:
    """Whether a part can be read, and holds what was written."""
    return read_if_intact(path) is not None


def read_row_groups(path: Path) -> "Iterator[pa.Table]":
    """The rows of one part, as they were written, a row group at a time."""
    import pyarrow.parquet as pq

    with opened_for_reading(path) as file:
        part = pq.ParquetFile(file, pre_buffer=USE_THREADS)
        for group in range(part.num_row_groups):
            yield part.read_row_group(group, use_threads=USE_THREADS)


def read_file_facts(source: Path | bytes) -> FileFacts:
    """Size, time of the last change in nanoseconds and inode of the file of each row; int64 [rows, 3]."""
    import pyarrow.parquet as pq

    with _opened(source) as file:
        content = (pq.read_metadata(file).metadata or {}).get(_FILES_KEY.encode(), b"")
    values = np.frombuffer(zlib.decompress(base64.b64decode(content)), np.int64) if content else np.zeros(0)
    return values.astype(np.int64).reshape(3, -1).T
