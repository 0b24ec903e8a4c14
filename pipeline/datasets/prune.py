"""The tensors that no prepared dataset needs any more, and their removal."""

from collections.abc import Collection
from pathlib import Path

from pixelmill.pipeline.artifacts import remove_file
from pixelmill.pipeline.datasets import read_prepared
from pixelmill.pipeline.datasets.tensor_index import INDEX_SUFFIX
from pixelmill.pipeline.datasets.tensor_lock import removing


def unused_segments(store: Path, without: Collection[object] = ()) -> dict[Path, list[int]]:
    """The segments that no prepared dataset of a store needs, except those `without`, by their folder."""
    folders = sorted((store / "tensors").glob("*/"))
    return {folder: unused for folder in folders if (unused := _unused(store, folder, without))}


def prune_tensors(store: Path) -> list[Path]:
    """Remove the segments that no prepared dataset of a store needs, and return the paths removed.

    Where a preparation, a training or an audit is at work, nothing is removed: it may need segments that no
    prepared dataset names yet. A checkpoint needs none, as the tensors that are missing are decoded again.
    """
    removed = []
    for folder in sorted((store / "tensors").glob("*/")):
        with removing(folder) as is_free:
            for number in _unused(store, folder) if is_free else []:
                # The index first: tensors without an index count as unfinished.
                paths = sorted(folder.glob(f"{number:08d}.*"), key=lambda path: path.suffix != INDEX_SUFFIX)
                for path in paths:
                    remove_file(path)
                    removed.append(path)
    return removed


def _unused(store: Path, folder: Path, without: Collection[object] = ()) -> list[int]:
    needed = {
        int(number)
        for prepared, manifest in read_prepared(store).items()
        if manifest["tensors"] == folder.name and prepared not in without
        for number in manifest["segments"]
    }
    return sorted({int(path.stem) for path in folder.glob(f"[0-9]*{INDEX_SUFFIX}")} - needed)
