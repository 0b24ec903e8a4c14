"""The second stage: decode the images that are new, and decide the split of each image."""

import hashlib
from collections.abc import Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from pixelmill.pipeline.artifacts import (
    MANIFEST,
    canonical_json,
    publishing,
    remove_folder,
    verify_files,
    write_json,
)
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.config.sources import OwnImages
from pixelmill.pipeline.datasets import ROWS_FILE, Labels, PreparedDataset, RawDataset, SplitName
from pixelmill.pipeline.datasets.catalogue import SLICE
from pixelmill.pipeline.datasets.catalogue_rows import PARTS, CatalogueRows, read_rows, read_strings
from pixelmill.pipeline.datasets.class_coverage import check_coverage
from pixelmill.pipeline.datasets.decisions import OPEN, SPLITS
from pixelmill.pipeline.datasets.division import (
    ModelHistory,
    UsableImages,
    choose_classes,
    divide_images,
    size_of_ledger,
    tabulate_images,
)
from pixelmill.pipeline.datasets.duplicates import find_contradictions
from pixelmill.pipeline.datasets.tensor_writer import add_tensors
from pixelmill.pipeline.datasets.tensors import Located, TensorStore
from pixelmill.pipeline.display import without_passwords
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.progress import progress

_log = getLogger(__name__)
_FORMAT = 4
_REJECTED = "rejected.json"
# The split that each of `PARTS` stands for.
_SIDES = np.array([OPEN if part is None else SPLITS.index(part) for part in PARTS], np.int8)
_PLACES = {"path", "test_path", "validation_path", "root", "mirrors", "package_index", "corrections"}


def prepare_dataset(
    raw: RawDataset,
    recipe: Recipe,
    store: Path,
    history: ModelHistory | None = None,
    *,
    verify_data: bool = False,
) -> PreparedDataset:
    """Decode the images of a dataset that are new, and divide all of them into splits.

    `images.parquet` has a row for each image, and `rejected.json` the images that cannot be read. The
    tensors are in `tensors/` of the store, once for each content.

    Args:
        raw: The dataset.
        recipe: Its `dataset` and `image` are used.
        store: The local folder for the working files of a store.
        history: What earlier runs of the model decided; None for splits that depend on the images alone.
        verify_data: Whether to read all tensors that are reused, and compare their SHA-256.

    Raises:
        RequestError: A class has too few images to split, or `dataset.classes` does not fit.
        GateRefused: A class of the newest version has no images.
        WorkError: More files are unreadable than the recipe allows, or what is reused is damaged.
    """
    folder = store / "datasets" / f"{raw.source}-{_key(raw, recipe, history)[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    tensors = TensorStore(store, recipe.image)
    with FileLock(folder.with_name(f".{folder.name}.lock")), tensors.in_use():
        manifest = _reusable(folder, tensors, size_of_ledger(recipe.dataset, history))
        if manifest is None:
            _prepare(raw, recipe, folder, tensors, history)
            manifest = verify_files(folder)
        tensors.verify(manifest["segments"], read_all=verify_data)
        warnings = [*raw.warnings, *manifest["split_warnings"]]
        facts = {
            "warnings": warnings,
            "left_out": dict(raw.left_out),
            "corrections": dict(raw.corrections),
            "exclusions": _without_excluded(raw, folder),
        }
        if any(manifest.get(key) != value for key, value in facts.items()):
            manifest = {**manifest, **facts}
            write_json(folder / MANIFEST, manifest)
    return PreparedDataset.from_manifest(folder, manifest)


def _without_excluded(raw: RawDataset, folder: Path) -> dict[str, Any]:
    """The exclusion list for the manifest, after checking that no split has a content of it.

    Raises:
        WorkError: A split has one.
    """
    if raw.exclusions.contents:
        found = pq.read_table(folder / ROWS_FILE, columns=["sha256"])["sha256"]
        present = set(found.to_pylist()) & raw.exclusions.contents
        if present:
            raise WorkError(
                f"{folder} with {len(present)} excluded images, such as {min(present)}",
                "none of the contents on the store's exclusion list",
                "Remove the folder; it will be prepared again.",
            )
    return raw.exclusions.describe(raw.excluded)


def _reusable(folder: Path, tensors: TensorStore, ledger_size: int) -> dict[str, Any] | None:
    """The manifest of a prepared dataset, unless its tensors or the record of its splits are gone, or an
    image failed for a reason that may have passed.
    """
    if not (folder / MANIFEST).exists():
        return None
    try:
        manifest = verify_files(folder)
    except WorkError as error:
        raise WorkError(
            error.received, error.expected, f"Remove {folder}; it will be prepared again."
        ) from error
    is_final = not manifest["failed_this_time"] and ledger_size >= manifest["ledger_size"]
    if is_final and tensors.is_complete(manifest["segments"]):
        return manifest
    remove_folder(folder)
    return None


def _key(raw: RawDataset, recipe: Recipe, history: ModelHistory | None) -> str:
    """A hash of what the splits and names depend on, but not the location of the dataset."""
    settings = recipe.dataset.model_dump(exclude=_PLACES)
    image = TensorStore(Path(), recipe.image).folder.name
    # A ledger never changes what it has decided, so the splits of the same images stay the same.
    model = None
    if history is not None and isinstance(recipe.dataset, OwnImages):
        model = [recipe.name, history.class_names]
    parts = [_FORMAT, raw.fingerprint, raw.names_sha256, raw.class_names, settings, image, model]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def _prepare(
    raw: RawDataset, recipe: Recipe, folder: Path, tensors: TensorStore, history: ModelHistory | None
) -> None:
    rows = read_rows(raw.catalogue)
    usable = ~find_contradictions(rows)
    located, transient = _decode(raw, recipe, rows, usable, tensors)
    rejected = _rejected(raw, rows, usable, located, transient)
    _check_rejected(rejected, int(usable.sum()), recipe)
    images = find_usable(raw, recipe, rows, usable & (located.rows >= 0), located, history)
    division = divide_images(images, recipe.dataset, tensors, history)
    table = tabulate_images(images, division, is_ordered_by_content=isinstance(recipe.dataset, OwnImages))
    labels = _labels_of(table)
    # Classes of the newest version whose images are gone, which the recipe allows.
    removed = [name for label, name in enumerate(images.class_names) if label not in np.unique(images.labels)]
    warnings = [*division.warnings, *check_coverage(labels, images.class_names, removed)]
    segments = np.unique(images.segments).tolist()
    facts: dict[str, object] = {
        "kind": "prepared-dataset",
        "name": raw.source,
        "fingerprint": raw.fingerprint,
        "provenance": without_passwords(raw.provenance),
        "class_names": list(images.class_names),
        "image": recipe.image.preprocessing(),
        "tensor_spec": recipe.image.model_dump(),
        "tensors": tensors.folder.name,
        "segments": tensors.describe(segments),
        "split_warnings": warnings,
        "ledger_size": size_of_ledger(recipe.dataset, history),
        "rejected": len(rejected),
        "failed_this_time": len(transient),
        "counts": {split: len(found) for split, found in labels.items()},
    }
    for line in warnings:
        _log.warning("%s", line)
    with publishing(folder, facts) as staging:
        pq.write_table(table, staging / ROWS_FILE, row_group_size=65_536, compression="zstd")
        write_json(staging / _REJECTED, rejected)


def _decode(
    raw: RawDataset, recipe: Recipe, rows: CatalogueRows, usable: npt.NDArray[np.bool_], tensors: TensorStore
) -> tuple[Located, Mapping[bytes, str]]:
    """Make the tensors that are missing, and find those of all rows."""
    needed = np.flatnonzero(usable & rows.is_read)
    contents, first = np.unique(rows.contents[needed], return_index=True)
    if not isinstance(recipe.dataset, OwnImages):
        # In the order in which the images are trained on, which is that of their contents for files.
        first = np.sort(first)
        contents = rows.contents[needed[first]]
    places = read_strings(raw.catalogue, ["place"], needed[first])["place"]
    with progress("prepare", len(contents), "images") as advance:
        transient = add_tensors(
            tensors,
            contents,
            lambda chosen: places.take(pa.array(chosen)).to_pylist(),
            raw.catalogue.reader,
            advance,
        )
    return tensors.locate(rows.contents), transient


def _rejected(
    raw: RawDataset,
    rows: CatalogueRows,
    usable: npt.NDArray[np.bool_],
    located: Located,
    transient: Mapping[bytes, str],
) -> list[dict[str, str]]:
    failed = np.flatnonzero(usable & (located.rows < 0))
    strings = read_strings(raw.catalogue, ["origin", "error"], failed)
    found = []
    for row, origin, error in zip(
        failed.tolist(), *(column.to_pylist() for column in strings.columns), strict=True
    ):
        content = rows.contents[row : row + 1].tobytes()
        reason = error or located.failures.get(row) or transient[content]
        found.append({"path": origin, "error": reason})
    return sorted(found, key=lambda entry: entry["path"])


def find_usable(
    raw: RawDataset,
    recipe: Recipe,
    rows: CatalogueRows,
    usable: npt.NDArray[np.bool_],
    located: Located,
    history: ModelHistory | None,
) -> UsableImages:
    """The images of a catalogue that are used.

    Args:
        raw: The dataset.
        recipe: Its `dataset` is used.
        rows: The rows of the catalogue.
        usable: Which of them are used, bool [rows].
        located: Where their tensors are.
        history: What earlier runs of the model decided.

    Raises:
        RequestError: `dataset.classes` does not fit the data or the newest version.
        GateRefused: A class of the newest version has no images.
    """
    places = np.flatnonzero(usable)
    found = [rows.class_names[code] for code in np.unique(rows.classes[places])]
    class_names = choose_classes(recipe.dataset, found, raw.class_names, history)
    label_of = {name: label for label, name in enumerate(class_names)}
    labels = np.array([label_of.get(name, -1) for name in rows.class_names], np.int64)
    slices = [name for name in pq.read_schema(raw.catalogue.path).names if name.startswith(SLICE)]
    return UsableImages(
        contents=rows.contents[places],
        class_names=class_names,
        labels=labels[rows.classes[places]],
        parts=_SIDES[rows.parts[places]],
        strings=read_strings(raw.catalogue, ["group", "name", "origin", *slices], places),
        segments=located.segments[places],
        rows=located.rows[places],
    )


def _check_rejected(rejected: Sequence[Mapping[str, str]], total: int, recipe: Recipe) -> None:
    if not rejected:
        return
    first = f"the first: {rejected[0]['path']}: {rejected[0]['error']}"
    _log.warning("%d of %d images cannot be read and are left out; %s", len(rejected), total, first)
    if isinstance(recipe.dataset, OwnImages):
        allowed = recipe.dataset.max_unreadable_fraction
        if len(rejected) / total > allowed:
            raise WorkError(
                f"{len(rejected)} of {total} images cannot be read ({first})",
                f"at most {allowed:.1%}",
                "Repair or remove them, or raise dataset.max_unreadable_fraction.",
            )


def _labels_of(table: pa.Table) -> dict[SplitName, Labels]:
    """The labels of each split, int64 [images]."""
    return {
        split: table["label"].filter(pc.equal(table["split"], split)).to_numpy().astype(np.int64)
        for split in SPLITS
    }
