"""The ledger of a model: which split each image content was put into, so that none ever moves.

It is `splits/MODEL/00000001.parquet` and so on in the store: each run that decides something adds a segment,
and none is ever changed. Later segments win.
"""

import io
import re
from collections.abc import Callable, Mapping

from pixelmill.pipeline.datasets import SplitName
from pixelmill.pipeline.datasets.splits import SPLITS, Division
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.storage import Location, create_file, file_sizes, opened_for_reading

_SEGMENT = re.compile(r"([0-9]{8})\.parquet")
_COLUMNS = ("sha256", "split", "unit")


def ledger_folder(store: Location, model: str) -> Location:
    """The folder of a model's ledger."""
    return store / "splits" / model


def settle_splits(folder: Location, decide: Callable[[Mapping[str, SplitName]], Division]) -> Division:
    """Divide a dataset by what the ledger says, and add what was decided to it.

    Args:
        folder: The ledger's folder; it need not exist.
        decide: Divides the dataset, given the split of each content decided so far by SHA-256. It is called
            again if another process decided something in between.

    Raises:
        WorkError: A segment of the ledger is damaged.
    """
    decided: dict[str, SplitName] = {}
    read = 0
    while True:
        for number, segment in _segments(folder):
            if number > read:
                decided |= _read_segment(segment)
                read = number
        division = decide(decided)
        new = {sha256: split for sha256, split in division.decisions.items() if decided.get(sha256) != split}
        if not new or create_file(folder / f"{read + 1:08d}.parquet", _segment_of(new, division.units)):
            return division


def read_ledger(folder: Location) -> dict[str, SplitName]:
    """The split of every content that was ever decided, by SHA-256; empty if there is no ledger.

    Raises:
        WorkError: A segment of the ledger is damaged.
    """
    decided: dict[str, SplitName] = {}
    for _, segment in _segments(folder):
        decided |= _read_segment(segment)
    return decided


def ledger_size(folder: Location) -> int:
    """The number of segments of a ledger; 0 if there is none."""
    return len(_segments(folder))


def _segments(folder: Location) -> list[tuple[int, Location]]:
    found = (_SEGMENT.fullmatch(name) for name in file_sizes(folder))
    return sorted((int(match[1]), folder / match[0]) for match in found if match)


def _segment_of(decisions: Mapping[str, SplitName], units: Mapping[str, str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys = sorted(decisions)
    columns = (keys, [decisions[key] for key in keys], [units[key] for key in keys])
    table = pa.table([pa.array(column, pa.string()) for column in columns], names=_COLUMNS)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _read_segment(path: Location) -> dict[str, SplitName]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened_for_reading(path) as source:
            table = pq.read_table(source, columns=["sha256", "split"])
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, str(error)) from error
    columns = [column.to_pylist() for column in table.columns]
    if len(columns) != 2 or not set(columns[1]) <= set(SPLITS):
        raise _damaged(path, "it does not give a split for each SHA-256")
    return dict(zip(*columns, strict=True))


def _damaged(path: Location, reason: str) -> WorkError:
    return WorkError(
        f"{path}, a record of the splits of images, cannot be read ({reason})",
        "a Parquet file as pixelmill wrote it",
        "Restore it from a copy: without it, training images may become test images.",
    )
