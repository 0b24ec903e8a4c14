"""What is known of a dataset's images, put together for an audit."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pixelmill.pipeline.artifacts import write_array
from pixelmill.pipeline.audit import AuditInput, Predictions
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.config.sources import OwnImages
from pixelmill.pipeline.datasets import PreparedDataset, RawDataset, SplitName
from pixelmill.pipeline.datasets.catalogue_rows import CatalogueRows, read_rows
from pixelmill.pipeline.datasets.near_duplicates import find_components
from pixelmill.pipeline.datasets.tensor_writer import add_tensors
from pixelmill.pipeline.datasets.tensors import StoredTensors, TensorStore
from pixelmill.pipeline.progress import progress

_STRINGS = {"name": "path", "sha256": "sha256", "class_name": "label", "group": "group"}
Indices = npt.NDArray[np.int64]


def collect(
    raw: RawDataset,
    recipe: Recipe,
    store: Path,
    prepared: PreparedDataset | None = None,
    components: Path | None = None,
) -> AuditInput:
    """Put together what is known of a dataset's images, decoding those that have not been decoded.

    Args:
        raw: The dataset.
        recipe: Its `name`, `dataset` and `image` are used.
        store: The local folder for the working files of a store.
        prepared: The splits; if it is missing, those that the source assigns by itself.
        components: A file that keeps which images are nearly equal, for the next audit of the same dataset.
    """
    rows = read_rows(raw.catalogue)
    tensors = TensorStore(store, recipe.image)
    with tensors.in_use():
        transient = _decode_missing(raw, rows, tensors)
        located = tensors.locate(rows.contents)
        has_tensor = located.rows >= 0
        _, first, numbers = np.unique(rows.contents[has_tensor], return_index=True, return_inverse=True)
        contents = np.flatnonzero(has_tensor)[first]
        opened = tensors.open(located.segments[contents], located.rows[contents])
    measures = tensors.measures(rows.contents[contents])
    index = np.full(len(rows), -1, np.int64)
    index[has_tensor] = numbers
    columns = _strings(raw, rows, located.failures, transient)
    columns["split"] = _splits(raw, prepared)
    columns["tensor"] = _nullable(index)
    columns |= {name: measures[name].take(_nullable(index)) for name in measures.column_names}
    numbered = np.arange(len(contents))
    if len(contents) and _wants_near_duplicates(recipe, prepared):
        numbered = _find_components(measures["perceptual_hash"].to_numpy(), opened, components)
    columns["component"] = pa.array(numbered).take(_nullable(index))
    return AuditInput(recipe.name, pa.table(columns), opened, raw.class_names)


def predictions_of(dataset: PreparedDataset, files: Mapping[SplitName, Path]) -> Predictions:
    """The predictions for the images of some splits.

    Args:
        dataset: The dataset.
        files: For each split a `.npy` file, float32 [images, classes]; NaN for images without a prediction.
    """
    rows = pa.concat_tables(dataset.rows(split, ["sha256", "label"]) for split in files)
    probabilities = np.concatenate([np.load(path, allow_pickle=False) for path in files.values()])
    known = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    return Predictions(
        tuple(rows["sha256"].take(known).to_pylist()),
        rows["label"].to_numpy()[known].astype(np.int64),
        probabilities[known],
    )


def _wants_near_duplicates(recipe: Recipe, prepared: PreparedDataset | None) -> bool:
    source = recipe.dataset
    if isinstance(source, OwnImages):
        return source.audit.near_duplicate != "ignore" or source.audit.leak != "ignore"
    # Others are the same in every retraining, so it is enough to look once, with the command.
    return prepared is None


def _find_components(hashes: npt.NDArray[np.uint64], tensors: StoredTensors, kept: Path | None) -> Indices:
    if kept is not None and kept.is_file():
        known: Indices = np.load(kept, allow_pickle=False)
        return known
    found = find_components(hashes, tensors)
    if kept is not None:
        write_array(kept, found)
    return found


def _decode_missing(raw: RawDataset, rows: CatalogueRows, tensors: TensorStore) -> Mapping[bytes, str]:
    """Decode what has no tensor yet, such as contents in two classes, which no dataset uses."""
    read = np.flatnonzero(rows.is_read)
    contents, first = np.unique(rows.contents[read], return_index=True)
    places = pq.read_table(raw.catalogue.path, columns=["place"])["place"].combine_chunks()
    places = places.take(pa.array(read[first]))
    with progress("audit", len(contents), "images") as advance:
        return add_tensors(
            tensors,
            contents,
            lambda chosen: places.take(pa.array(chosen)).to_pylist(),
            raw.catalogue.reader,
            advance,
        )


def _strings(
    raw: RawDataset, rows: CatalogueRows, failures: Mapping[int, str], transient: Mapping[bytes, str]
) -> dict[str, pa.ChunkedArray]:
    table = pq.read_table(raw.catalogue.path, columns=[*_STRINGS, "error"])
    columns = {column: table[name] for name, column in _STRINGS.items()}
    errors = table["error"].to_pylist()
    for row, failure in failures.items():
        errors[row] = failure
    if transient:
        for row, content in enumerate(rows.contents.tolist()):
            errors[row] = errors[row] or transient.get(content.ljust(32, b"\0"))
    columns["error"] = pa.chunked_array([pa.array(errors, pa.string())])
    return columns


def _splits(raw: RawDataset, prepared: PreparedDataset | None) -> pa.ChunkedArray:
    if prepared is None:
        return pq.read_table(raw.catalogue.path, columns=["part"])["part"]
    origins = pq.read_table(raw.catalogue.path, columns=["origin"])["origin"]
    known = prepared.rows(None, ["origin", "split"]).combine_chunks()
    return known["split"].take(pc.index_in(origins, value_set=known["origin"].combine_chunks()))


def _nullable(index: Indices) -> pa.Array:
    return pa.array(index, mask=index < 0)
