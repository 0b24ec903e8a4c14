"""What the workers of one machine have answered so far, so that files of the same bytes are scored once.

Each worker appends its predictions to one file when it is done with a block of a shard, and looks what the
others have added before it begins the next. A record is used only if its whole hash is the one looked for.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.predictions.columns import Predictions
from pixelmill.pipeline.scoring.reuse import (
    Keys,
    Records,
    digests_of,
    fill_rows,
    keys_of,
    record_type,
    records_of,
)

ANSWERED_FILE = "answered.bin"
_MOST = 1 << 22
"""Records that are kept in mind, at 16 bytes each; what comes later is not looked for in later shards."""
_RECENT = 1 << 14


class AnsweredImages:
    """The predictions of a run, as one worker sees them."""

    def __init__(self, path: Path, top_k: int) -> None:
        self._path = path
        self._type = record_type(top_k)
        self._read = 0
        # Sorted: most in `base`, and what came last in `recent`, which is quickly sorted anew.
        self._base = _Index()
        self._recent = _Index()

    def take_same_bytes(self, places: Sequence[int], predictions: Predictions) -> set[int]:
        """Fill the rows whose bytes have been answered; the places filled come back."""
        taken: set[int] = set()
        self._refresh()
        if not places or not self._read:
            return taken
        digests = digests_of(predictions, places)
        keys = keys_of(digests)
        for index in (self._base, self._recent):
            for at, row in index.find(keys):
                record = self._load(row, 1)
                if record["sha256"][0] == digests[at]:
                    fill_rows(predictions, np.array([places[at]]), record)
                    taken.add(places[at])
        return taken

    def add(self, predictions: Predictions, places: Sequence[int]) -> None:
        """Tell the other workers of scored rows."""
        if places and self._read < _MOST:
            # In one write: the system appends it whole, whoever else is writing.
            with self._path.open("ab", buffering=0) as file:
                file.write(records_of(predictions, places).tobytes())

    def _refresh(self) -> None:
        if not self._path.is_file():
            return
        count = min(self._path.stat().st_size // self._type.itemsize, _MOST) - self._read
        if count > 0:
            keys = keys_of(self._load(self._read, count)["sha256"])
            self._recent = self._recent.with_more(keys, self._read)
            self._read += count
            if len(self._recent.keys) > _RECENT:
                self._base = self._base.merged_with(self._recent)
                self._recent = _Index()

    def _load(self, start: int, count: int) -> Records:
        return np.fromfile(self._path, self._type, count, offset=start * self._type.itemsize)


class _Index:
    """Where in the file the records of some keys are; the keys are sorted."""

    def __init__(self, keys: Keys | None = None, rows: npt.NDArray[np.int64] | None = None) -> None:
        self.keys = np.zeros(0, np.uint64) if keys is None else keys
        self.rows = np.zeros(0, np.int64) if rows is None else rows

    def with_more(self, keys: Keys, first_row: int) -> "_Index":
        return self.merged_with(_Index(keys, first_row + np.arange(len(keys))))

    def merged_with(self, other: "_Index") -> "_Index":
        keys = np.concatenate([self.keys, other.keys])
        order = np.argsort(keys, kind="stable")
        return _Index(keys[order], np.concatenate([self.rows, other.rows])[order])

    def find(self, keys: Keys) -> list[tuple[int, int]]:
        """The place of each key that is known, and the row of its record."""
        if not len(self.keys):
            return []
        found = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return [(int(at), int(self.rows[found[at]])) for at in np.flatnonzero(self.keys[found] == keys)]
