"""The ledger of a model: which split each image content was put into, so that none ever moves.

It is `splits/MODEL/00000001.parquet` and so on in the store: each run that decides something adds a segment,
and none is ever changed. Later segments win.
"""

import io
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets.contents import Contents, as_contents, as_text
from pixelmill.pipeline.datasets.decisions import SPLITS, Decisions, Sides
from pixelmill.pipeline.datasets.splits import Division
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.storage import Location, create_file, file_sizes, opened_for_reading

_SEGMENT = re.compile(r"([0-9]{8})\.parquet")
_COLUMNS = ("sha256", "split", "unit")


def ledger_folder(store: Location, model: str) -> Location:
    """The folder of a model's ledger."""
    return store / "splits" / model


def settle_splits(folder: Location, decide: Callable[[Decisions], Division]) -> Division:
    """Divide a dataset by what the ledger says, and add what was decided to it.

    Args:
        folder: The ledger's folder; it need not exist.
        decide: Divides the dataset, given what was decided so far. It is called again if another process
            decided something in between.

    Raises:
        WorkError: A segment of the ledger is damaged.
    """
    decided = Decisions.nothing()
    read = 0
    while True:
        for number, segment in _segments(folder):
            if number > read:
                decided = decided.updated(*_read_segment(segment))
                read = number
        division = decide(decided)
        decisions = division.decisions
        is_new = decided.sides_of(decisions.contents) != decisions.sides
        if not is_new.any() or create_file(folder / f"{read + 1:08d}.parquet", _segment_of(division, is_new)):
            return division


def read_ledger(folder: Location) -> Decisions:
    """The split of every content that was ever decided; empty if there is no ledger.

    Raises:
        WorkError: A segment of the ledger is damaged.
    """
    decided = Decisions.nothing()
    for _, segment in _segments(folder):
        decided = decided.updated(*_read_segment(segment))
    return decided


def ledger_size(folder: Location) -> int:
    """The number of segments of a ledger; 0 if there is none."""
    return len(_segments(folder))


def _segments(folder: Location) -> list[tuple[int, Location]]:
    found = (_SEGMENT.fullmatch(name) for name in file_sizes(folder))
    return sorted((int(match[1]), folder / match[0]) for match in found if match)


def _segment_of(division: Division, chosen: npt.NDArray[np.bool_]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    decisions = division.decisions
    splits = pa.array(SPLITS).take(pa.array(decisions.sides[chosen]))
    columns = [as_text(decisions.contents[chosen]), splits, as_text(division.units[chosen])]
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, names=_COLUMNS), buffer, compression="zstd")
    return buffer.getvalue()


def _read_segment(path: Location) -> tuple[Contents, Sides]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with opened_for_reading(path) as source:
            table = pq.read_table(source, columns=["sha256", "split"]).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, str(error)) from error
    try:
        contents = as_contents(table["sha256"].combine_chunks())
        sides = pc.index_in(table["split"], value_set=pa.array(SPLITS)).combine_chunks()
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise _damaged(path, "it does not give a split for each SHA-256") from error
    if sides.null_count or len(contents) != len(sides):
        raise _damaged(path, "it does not give a split for each SHA-256")
    return contents, sides.to_numpy().astype(np.int8)


def _damaged(path: Location, reason: str) -> WorkError:
    return WorkError(
        f"{path}, a record of the splits of images, cannot be read ({reason})",
        "a Parquet file as pixelmill wrote it",
        "Restore it from a copy: without it, training images may become test images.",
    )
