"""The labels of an earlier table by content, in 12 bytes for each row."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.predictions.table import StoredTable
from pixelmill.pipeline.review.blocks import scored_blocks

_KEY_DIGITS = 16


class PreviousLabels:
    """What an earlier table said of each content; the first 64 bits of the SHA-256 stand for it."""

    def __init__(self, table: StoredTable) -> None:
        """Read the scored rows of a table."""
        self._names: dict[str, int] = {}
        keys, codes = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
        for rows in scored_blocks(table):
            keys.append(_keys(rows["image_sha256"].to_pylist()))
            codes.append(self._codes(rows["label"].to_pylist()))
        all_keys = np.concatenate(keys)
        order = np.argsort(all_keys, kind="stable")
        self._keys, self._labels = all_keys[order], np.concatenate(codes)[order]

    def differ(self, hashes: Sequence[str], labels: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether the earlier table has another label for each content, bool [contents]."""
        before = self._find(_keys(hashes))
        different: npt.NDArray[np.bool_] = (before >= 0) & (before != self._codes(labels))
        return different

    def label_of(self, sha256: str) -> str | None:
        """The label of a content; None if the earlier table has none."""
        code = int(self._find(_keys([sha256]))[0])
        return list(self._names)[code] if code >= 0 else None

    def _find(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
        if not len(self._keys):
            return np.full(len(keys), -1, np.int32)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found: npt.NDArray[np.int32] = np.where(self._keys[at] == keys, self._labels[at], np.int32(-1))
        return found

    def _codes(self, labels: Sequence[str]) -> npt.NDArray[np.int32]:
        names = self._names
        return np.fromiter((names.setdefault(label, len(names)) for label in labels), np.int32, len(labels))


def _keys(hashes: Sequence[str]) -> npt.NDArray[np.uint64]:
    digits = "".join(sha256[:_KEY_DIGITS] for sha256 in hashes)
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)
