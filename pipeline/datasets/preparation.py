"""The second stage: decode all images to tensors and write three splits as arrays.

Splits are chosen by the hash of each image's content: the same data gives the same splits everywhere, and
duplicates are always in the same split.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from logging import getLogger
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from numpy.lib.format import write_array_header_1_0

from pixelmill.pipeline.artifacts import (
    MANIFEST,
    canonical_json,
    publishing,
    verify_files,
    write_array,
    write_json,
)
from pixelmill.pipeline.config import FolderSource, ImageSpec, Recipe
from pixelmill.pipeline.datasets import (
    NAMES_FILE,
    TEST_ORIGINS_FILE,
    PreparedDataset,
    RawDataset,
    SplitName,
)
from pixelmill.pipeline.datasets.examples import Example, load_all, read_examples
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.images import ImageFailure, Pixels
from pixelmill.pipeline.progress import progress

_log = getLogger(__name__)
_FORMAT = 3
_SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def prepare_dataset(raw: RawDataset, recipe: Recipe, store: Path) -> PreparedDataset:
    """Write the arrays of a dataset, or reuse those of an earlier run.

    Each split has `SPLIT_images.npy`, uint8 [images, height, width, channels], and `SPLIT_labels.npy`,
    int64 [images]. `names.json` has the name of each image, `test_origins.json` the path of each test image,
    and `rejected.json` the files that cannot be read. The warnings and files left out in the manifest are
    updated even if the arrays are reused.

    Raises:
        RequestError: A class has too few images to split.
        WorkError: More files are unreadable than the recipe allows, or the arrays to reuse are damaged.
    """
    folder = store / "datasets" / f"{raw.source}-{_key(raw, recipe)[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not (folder / MANIFEST).exists():
            _prepare(raw, recipe, folder)
        try:
            manifest = verify_files(folder)
        except WorkError as error:
            raise WorkError(
                error.received, error.expected, f"Remove {folder}; it will be prepared again."
            ) from error
        source_facts = _source_facts(raw)
        if any(manifest[key] != value for key, value in source_facts.items()):
            manifest = {**manifest, **source_facts}
            write_json(folder / MANIFEST, manifest)
    return PreparedDataset.from_manifest(folder, manifest)


def _source_facts(raw: RawDataset) -> dict[str, object]:
    return {"warnings": list(raw.warnings), "left_out": dict(raw.left_out)}


def _prepare(raw: RawDataset, recipe: Recipe, folder: Path) -> None:
    class_names, train, test = read_examples(raw)
    splits = _split(train, test, recipe)
    facts: dict[str, object] = {
        "kind": "prepared-dataset",
        "name": raw.source,
        "fingerprint": raw.fingerprint,
        "provenance": raw.provenance,
        "class_names": list(class_names),
        "image": recipe.image.model_dump(),
        **_source_facts(raw),
    }
    with publishing(folder, facts) as staging:
        total = sum(map(len, splits.values()))
        loaded = load_all([example for name in splits for example in splits[name]], recipe.image)
        rejected: list[dict[str, str]] = []
        labels: dict[SplitName, list[int]] = {}
        names: dict[SplitName, list[str]] = {}
        test_origins: list[str] = []
        with progress("prepare", total, "images") as advance:
            for name, examples in splits.items():
                path = staging / f"{name}_images.npy"
                labels[name], names[name] = [], []
                for example, failure in write_images(path, examples, loaded, recipe.image):
                    if failure is None:
                        labels[name].append(example.label)
                        names[name].append(example.name)
                        if name == "test":
                            test_origins.append(example.origin)
                    else:
                        rejected.append({"path": example.origin, "error": str(failure)})
                    advance(1, "")
                write_array(staging / f"{name}_labels.npy", np.array(labels[name], np.int64))
        _check_rejected(rejected, total, recipe)
        _check_classes(labels, class_names)
        write_json(staging / NAMES_FILE, names)
        write_json(staging / TEST_ORIGINS_FILE, test_origins)
        write_json(staging / "rejected.json", rejected)
        facts["rejected"] = len(rejected)
        facts["counts"] = {name: len(known) for name, known in labels.items()}


def _key(raw: RawDataset, recipe: Recipe) -> str:
    """A hash of what the arrays and names depend on: content, relative names, image settings and fractions,
    but not the location of the dataset folder.
    """
    settings = recipe.dataset.model_dump(exclude={"path", "test_path", "mirrors", "package_index"})
    parts = [_FORMAT, raw.fingerprint, raw.names_sha256, settings, recipe.image.model_dump()]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def _split(train: list[Example], test: list[Example], recipe: Recipe) -> dict[SplitName, list[Example]]:
    source = recipe.dataset
    splits: dict[SplitName, list[Example]] = {}
    if test:
        splits["test"] = test
    elif not hasattr(source, "test_fraction"):
        raise RequestError("a dataset without test images", "a test set", "Set dataset.test_path.")
    else:
        train, splits["test"] = _hold_out(train, source.test_fraction, "test")
    splits["train"], splits["validation"] = _hold_out(train, source.validation_fraction, "validation")
    return {name: splits[name] for name in _SPLITS}


def _hold_out(examples: Sequence[Example], fraction: float, salt: str) -> tuple[list[Example], list[Example]]:
    """Divide the examples of each class into those that stay and those held out, at least one each."""
    contents: dict[int, set[str]] = defaultdict(set)
    seen: set[str] = set()
    for example in examples:
        # Content shared by two classes counts for the first, so that it stays on one side.
        if example.sha256 not in seen:
            seen.add(example.sha256)
            contents[example.label].add(example.sha256)
    aside: set[str] = set()
    for hashes in contents.values():
        order = sorted(hashes, key=lambda item: hashlib.sha256(f"{salt}{item}".encode()).digest())
        count = min(max(1, round(len(order) * fraction)), len(order) - 1)
        aside.update(order[:count])
    return (
        [example for example in examples if example.sha256 not in aside],
        [example for example in examples if example.sha256 in aside],
    )


def write_images(
    path: Path, examples: Sequence[Example], loaded: Iterator[Pixels | ImageFailure], spec: ImageSpec
) -> Iterator[tuple[Example, ImageFailure | None]]:
    """Write the images that can be loaded to a `.npy` file, and yield each example with its failure, if any.

    Only a few images are in memory at a time. The file is not memory-mapped, because a full disk would then
    raise a signal instead of an error.

    Args:
        path: The file to write.
        examples: The examples to write.
        loaded: An iterator whose next items are the tensors of these examples.
        spec: The size of the tensors.
    """
    count = 0
    with path.open("wb") as file:
        _write_header(file, (count, spec.height, spec.width, spec.channels))
        for example in examples:
            pixels = next(loaded)
            if isinstance(pixels, ImageFailure):
                yield example, pixels
                continue
            file.write(pixels.tobytes())
            count += 1
            yield example, None
        # NumPy pads the header so that the first dimension can grow.
        file.seek(0)
        _write_header(file, (count, spec.height, spec.width, spec.channels))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    write_array_header_1_0(file, header)


def _check_rejected(rejected: list[dict[str, str]], total: int, recipe: Recipe) -> None:
    if not rejected:
        return
    first = f"the first: {rejected[0]['path']}: {rejected[0]['error']}"
    _log.warning("%d of %d images cannot be read and are left out; %s", len(rejected), total, first)
    if isinstance(recipe.dataset, FolderSource):
        allowed = recipe.dataset.max_unreadable_fraction
        if len(rejected) / total > allowed:
            raise WorkError(
                f"{len(rejected)} of {total} images cannot be read ({first})",
                f"at most {allowed:.1%}",
                "Repair or remove them, or raise dataset.max_unreadable_fraction.",
            )


def _check_classes(labels: dict[SplitName, list[int]], class_names: Sequence[str]) -> None:
    for split, known in labels.items():
        present = set(known)
        missing = [repr(name) for label, name in enumerate(class_names) if label not in present]
        if missing:
            raise RequestError(
                f"no image of {', '.join(missing)} in the {split} split can be read",
                "every class in every split",
                "Add images of these classes.",
            )
