"""The tensors that no prepared dataset needs any more, and their removal."""

from collections.abc import Collection
from pathlib import Path

from pixelmill.pipeline.artifacts import remove_file
from pixelmill.pipeline.datasets import read_prepared
from pixelmill.pipeline.datasets.tensor_index import INDEX_SUFFIX


def unused_segments(store: Path, without: Collection[object] = ()) -> dict[Path, list[int]]:
    """The segments that no prepared dataset of a store needs, except those `without`, by their folder."""
    needed: dict[str, set[int]] = {}
    for folder, manifest in read_prepared(store).items():
        if folder in without:
            continue
        needed.setdefault(manifest["tensors"], set()).update(map(int, manifest["segments"]))
    unused = {}
    for folder in sorted((store / "tensors").glob("*/")):
        numbers = {int(path.stem) for path in folder.glob(f"[0-9]*{INDEX_SUFFIX}")}
        if left := sorted(numbers - needed.get(folder.name, set())):
            unused[folder] = left
    return unused


def prune_tensors(store: Path) -> list[Path]:
    """Remove the segments that no prepared dataset of a store needs, and return the paths removed."""
    removed = []
    for folder, numbers in unused_segments(store).items():
        for number in numbers:
            # The index first: tensors without an index count as unfinished.
            for path in sorted(folder.glob(f"{number:08d}.*"), key=lambda path: path.suffix != INDEX_SUFFIX):
                remove_file(path)
                removed.append(path)
    return removed
