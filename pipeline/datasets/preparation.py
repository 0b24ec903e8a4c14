"""The second stage: decode the images that are new, and decide the split of each image."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from pixelmill.pipeline.datasets import ROWS_FILE, PreparedDataset, RawDataset, SplitName
from pixelmill.pipeline.datasets.catalogue_rows import PARTS, CatalogueRows, read_rows, read_strings
from pixelmill.pipeline.datasets.contents import as_hexadecimal
from pixelmill.pipeline.datasets.duplicates import find_contradictions
from pixelmill.pipeline.datasets.splits import Division, Fractions, Undivided, assign_splits
from pixelmill.pipeline.datasets.tensor_writer import add_tensors
from pixelmill.pipeline.datasets.tensors import Located, TensorStore
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.progress import progress

_log = getLogger(__name__)
_FORMAT = 4
_SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
_REJECTED = "rejected.json"
_PLACES = {"path", "test_path", "validation_path", "root", "mirrors", "package_index"}


def prepare_dataset(
    raw: RawDataset, recipe: Recipe, store: Path, *, verify_data: bool = False
) -> PreparedDataset:
    """Decode the images of a dataset that are new, and divide all of them into splits.

    `images.parquet` has a row for each image, and `rejected.json` the images that cannot be read. The
    tensors are in `tensors/` of the store, once for each content.

    Args:
        raw: The dataset.
        recipe: Its `dataset` and `image` are used.
        store: The local folder for the working files of a store.
        verify_data: Whether to read all tensors that are reused, and compare their SHA-256.

    Raises:
        RequestError: A class has too few images to split.
        WorkError: More files are unreadable than the recipe allows, or the tensors to reuse are damaged.
    """
    folder = store / "datasets" / f"{raw.source}-{_key(raw, recipe)[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    tensors = TensorStore(store, recipe.image)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        manifest = _reusable(folder, tensors)
        if manifest is None:
            _prepare(raw, recipe, folder, tensors)
            manifest = verify_files(folder)
        tensors.verify(manifest["segments"], read_all=verify_data)
        warnings = [*raw.warnings, *manifest["split_warnings"]]
        facts = {"warnings": warnings, "left_out": dict(raw.left_out)}
        if any(manifest.get(key) != value for key, value in facts.items()):
            manifest = {**manifest, **facts}
            write_json(folder / MANIFEST, manifest)
    return PreparedDataset.from_manifest(folder, manifest)


def _reusable(folder: Path, tensors: TensorStore) -> dict[str, Any] | None:
    """The manifest of a prepared dataset whose tensors are all there; one without them is removed."""
    if not (folder / MANIFEST).exists():
        return None
    try:
        manifest = verify_files(folder)
    except WorkError as error:
        raise WorkError(
            error.received, error.expected, f"Remove {folder}; it will be prepared again."
        ) from error
    if tensors.is_complete(manifest["segments"]):
        return manifest
    remove_folder(folder)
    return None


def _key(raw: RawDataset, recipe: Recipe) -> str:
    """A hash of what the splits and names depend on, but not the location of the dataset."""
    settings = recipe.dataset.model_dump(exclude=_PLACES)
    image = TensorStore(Path(), recipe.image).folder.name
    parts = [_FORMAT, raw.fingerprint, raw.names_sha256, raw.class_names, settings, image]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


@dataclass(frozen=True)
class _Chosen:
    """The images of a catalogue that are used: `places` are their rows there, the others describe each."""

    places: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    sha256: list[str]
    strings: pa.Table
    segments: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]


def _prepare(raw: RawDataset, recipe: Recipe, folder: Path, tensors: TensorStore) -> None:
    rows = read_rows(raw.catalogue)
    usable = ~find_contradictions(rows)
    located, transient = _decode(raw, recipe, rows, usable, tensors)
    rejected = _rejected(raw, rows, usable, located, transient)
    _check_rejected(rejected, int(usable.sum()), recipe)
    chosen = _choose(raw, rows, usable & (located.rows >= 0), located)
    division = _divide(chosen, rows, recipe)
    table = _tabulate(chosen, division, is_ordered_by_content=isinstance(recipe.dataset, OwnImages))
    _check_classes(table, raw.class_names)
    segments = np.unique(chosen.segments).tolist()
    counts = {name: pc.sum(pc.equal(table["split"], name)).as_py() or 0 for name in _SPLITS}
    facts: dict[str, object] = {
        "kind": "prepared-dataset",
        "name": raw.source,
        "fingerprint": raw.fingerprint,
        "provenance": raw.provenance,
        "class_names": list(raw.class_names),
        "image": recipe.image.preprocessing(),
        "tensor_spec": recipe.image.model_dump(),
        "tensors": tensors.folder.name,
        "segments": tensors.describe(segments),
        "split_warnings": list(division.warnings),
        "rejected": len(rejected),
        "counts": counts,
    }
    for line in division.warnings:
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


def _choose(raw: RawDataset, rows: CatalogueRows, usable: npt.NDArray[np.bool_], located: Located) -> _Chosen:
    places = np.flatnonzero(usable)
    label_of = {name: label for label, name in enumerate(raw.class_names)}
    labels = np.array([label_of[name] for name in rows.class_names], np.int64)
    slices = [name for name in pq.read_schema(raw.catalogue.path).names if name.startswith("slice:")]
    return _Chosen(
        places=places,
        labels=labels[rows.classes[places]],
        sha256=as_hexadecimal(rows.contents[places]),
        strings=read_strings(raw.catalogue, ["group", "name", "origin", *slices], places),
        segments=located.segments[places],
        rows=located.rows[places],
    )


def _divide(chosen: _Chosen, rows: CatalogueRows, recipe: Recipe) -> Division:
    source = recipe.dataset
    images = Undivided(
        sha256=chosen.sha256,
        labels=chosen.labels,
        names=chosen.strings["name"].to_pylist(),
        parts=[PARTS[code] for code in rows.parts[chosen.places].tolist()],
        groups=chosen.strings["group"].to_pylist(),
    )
    fractions = Fractions(getattr(source, "test_fraction", None), source.validation_fraction)
    return assign_splits(images, fractions, {})


def _tabulate(chosen: _Chosen, division: Division, *, is_ordered_by_content: bool) -> pa.Table:
    """The rows of `images.parquet`: splits one after the other, each in the order of training."""
    table = pa.table(
        {
            "split": pa.array(division.splits, pa.string()),
            "label": pa.array(chosen.labels.astype(np.int32)),
            "sha256": pa.array(chosen.sha256, pa.string()),
            "segment": pa.array(chosen.segments),
            "row": pa.array(chosen.rows),
        }
    )
    for name in chosen.strings.column_names:
        table = table.append_column(name, chosen.strings[name])
    position = pc.index_in(table["split"], value_set=pa.array(_SPLITS))
    table = table.append_column("position", position)
    keys = ["position", "sha256", "name"] if is_ordered_by_content else ["position"]
    kept = table.filter(pc.is_valid(table["split"]))
    # Stable, so that the images of a bundled dataset stay in their order.
    order = pc.sort_indices(kept, sort_keys=[(key, "ascending") for key in keys])
    return kept.take(order).drop_columns(["position"])


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


def _check_classes(table: pa.Table, class_names: Sequence[str]) -> None:
    for split in _SPLITS:
        present = set(pc.unique(table["label"].filter(pc.equal(table["split"], split))).to_pylist())
        missing = [repr(name) for label, name in enumerate(class_names) if label not in present]
        if missing:
            raise RequestError(
                f"no image of {', '.join(missing)} in the {split} split can be read",
                "every class in every split",
                "Add images of these classes.",
            )
