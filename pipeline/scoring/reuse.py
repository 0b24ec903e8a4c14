"""Predictions reused from an earlier table, for files with the same bytes or the same size, time and inode.

The scored rows of the earlier table are written to the work folder as two arrays, sorted by the first eight
bytes of the hash. Workers memory-map them, so that all share one copy.
"""

from collections.abc import Sequence
from functools import lru_cache
from logging import getLogger
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.artifacts import read_array, read_json, write_array, write_json, write_text
from pixelmill.pipeline.bundles import PREPROCESSING_FILE
from pixelmill.pipeline.drift.sample import ImageSample
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.inference import ROUNDING, Probabilities
from pixelmill.pipeline.predictions.arrays import Number, matrix_of, numbers_of, text_array
from pixelmill.pipeline.predictions.columns import EMBEDDING, Predictions
from pixelmill.pipeline.predictions.csv_format import read_csv
from pixelmill.pipeline.predictions.parts import file_facts, read_file_facts, read_image_sample, read_part
from pixelmill.pipeline.predictions.table import DamagedTable, StoredFile, StoredTable, read_table
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.listing import ListedImage
from pixelmill.pipeline.storage import absolute, parse_location

Records = npt.NDArray[np.void]
Keys = npt.NDArray[np.uint64]


def record_type(top_k: int, embedding_size: int = 0) -> np.dtype[np.void]:
    """The dtype of one record: hash, top-k classes and probabilities, embedding, and the displayed size."""
    fields: list[Any] = [
        ("sha256", "V32"),
        ("class_indices", "<i4", (top_k,)),
        ("probabilities", "<f4", (top_k,)),
        *([("embedding", "<f4", (embedding_size,))] if embedding_size else []),
        ("width", "<i4"),
        ("height", "<i4"),
    ]
    return np.dtype(fields)


def digests_of(predictions: Predictions, places: Sequence[int]) -> Records:
    """The hashes of the given rows as bytes; each of them must have one."""
    return np.frombuffer(bytes.fromhex("".join(predictions.sha256[place] or "" for place in places)), "V32")


def keys_of(digests: Records) -> Keys:
    """The first eight bytes of each hash as an integer, for fast sorting and comparison."""
    return np.frombuffer(digests.tobytes(), ">u8")[::4].astype(np.uint64)


def records_of(predictions: Predictions, places: Sequence[int]) -> Records:
    """The given rows as records; each of them must be scored."""
    shapes = predictions.class_indices.shape[1], predictions.embeddings.shape[1]
    records = np.zeros(len(places), record_type(*shapes))
    if len(places):
        records["sha256"] = digests_of(predictions, places)
        records["class_indices"] = predictions.class_indices[places]
        records["probabilities"] = predictions.probabilities[places]
        if shapes[1]:
            records["embedding"] = predictions.embeddings[places]
        records["width"] = predictions.widths[places]
        records["height"] = predictions.heights[places]
    return records


def fill_rows(predictions: Predictions, places: npt.NDArray[np.intp], records: Records) -> None:
    """Fill rows from the records of files with the same bytes."""
    predictions.class_indices[places] = records["class_indices"]
    predictions.probabilities[places] = records["probabilities"]
    if predictions.embeddings.shape[1]:
        predictions.embeddings[places] = records["embedding"]
    predictions.widths[places] = records["width"]
    predictions.heights[places] = records["height"]


if TYPE_CHECKING:
    import pyarrow as pa

_log = getLogger(__name__)
_COLUMNS = ("image_sha256", "error", "class_index", "probability", "width", "height")
_FURTHER_COLUMNS = ("top_labels", "top_probabilities")
_KEYS, _ROWS, _SPANS = "previous-keys.npy", "previous-rows.npy", "previous-parts.json"
_IMAGES = "previous-images.txt"


class PreviousTable:
    """Access to an earlier table in one worker.

    Attributes:
        image_sample: The measures of its images, in ascending order of their positions.
    """

    def __init__(self, request: ScoringRequest) -> None:
        self._keys = read_array(request.work / _KEYS)
        self._rows = read_array(request.work / _ROWS)
        self._spans = read_json(request.work / _SPANS) if request.trust_mtime else []
        self.image_sample = ImageSample.from_text((request.work / _IMAGES).read_text()).by_position()
        self._labels = request.bundle.labels()
        self._kept, self._columns = request.kept, _columns_of(request)
        self._max_pixels = request.max_pixels
        # The cache belongs to this object: another run may find a different table under the same name.
        self._read_unchangeable = lru_cache(maxsize=2)(_read_unchangeable)

    def take_same_bytes(self, places: Sequence[int], predictions: Predictions) -> set[int]:
        """Fill the rows whose hash is in the earlier table; returns their indices."""
        if not places or not len(self._keys):
            return set()
        digests = digests_of(predictions, places)
        found = np.minimum(np.searchsorted(self._keys, keys_of(digests)), len(self._keys) - 1)
        rows = self._rows[found]
        same = rows["sha256"] == digests
        filled = np.array(places)[same]
        fill_rows(predictions, filled, rows[same])
        return set(filled.tolist())

    def take_unchanged(self, images: Sequence[ListedImage], predictions: Predictions) -> set[int]:
        """Fill the rows whose file has the path, size, time and inode recorded in the earlier table.

        Returns:
            The indices of the rows filled.
        """
        taken: set[int] = set()
        if not self._spans or not images:
            return taken
        first, last = images[0].path, images[-1].path
        facts = file_facts([image[1:4] for image in images]).tolist()
        for begin, end, *file in self._spans:
            if begin <= last and end >= first:
                rows = self._read_unchangeable(
                    *file, self._labels, self._kept, self._max_pixels, self._columns
                )
                for place, image in enumerate(images):
                    row = rows.get((image.path, *facts[place]))
                    if row is not None and image.problem is None:
                        predictions.sha256[place] = row["sha256"].tobytes().hex()
                        fill_rows(predictions, np.array([place]), np.array([row]))
                        taken.add(place)
        return taken


def index_previous(request: ScoringRequest) -> None:
    """Write the arrays of the earlier table to the work folder. Takes 48 bytes of memory per row.

    Raises:
        RequestError: The folder holds no table, or a table without file times although they are to be
            trusted.
    """
    if request.previous is None:
        return
    if request.images == request.previous:
        raise RequestError(
            f"`previous` {request.previous}, the folder of images",
            "an earlier table",
            "Give the output folder of an earlier run.",
        )
    try:
        rows, spans, sample = read_table(request.previous, lambda table: _index_table(table, request))
    except (WorkError, OSError, ValueError, KeyError) as error:
        reason = error.received if isinstance(error, WorkError) else error
        raise RequestError(
            f"`previous` {request.previous} cannot be read ({reason})",
            "a table written by `pixelmill score`",
            "Restore the table, or omit the option to score all images again.",
        ) from error
    rows = rows[_is_usable(rows, request.max_pixels)]
    keys = keys_of(rows["sha256"])
    order = np.argsort(keys, kind="stable")
    write_array(request.work / _KEYS, keys[order])
    write_array(request.work / _ROWS, rows[order])
    write_text(request.work / _IMAGES, sample.to_text())
    if request.trust_mtime:
        write_json(request.work / _SPANS, spans)


_Span = tuple[str, str, str, str, int]
"""The first and last path in a part, and the part's file, SHA-256 and size in bytes."""


def _index_table(table: StoredTable, request: ScoringRequest) -> tuple[Records, list[_Span], ImageSample]:
    """The reusable rows of a table, the range of paths in each of its parts, and the sample of its images."""
    nothing = np.empty(0, record_type(request.kept, request.bundle.embedding_size))
    unmeasured = ImageSample.from_text("")
    if request.trust_mtime and table.is_csv:
        raise RequestError(
            f"`trust_mtime` with {table.files[0].path}",
            "an earlier table in Parquet, as CSV does not store file times",
            "Omit the option to compare files by their bytes.",
        )
    wanted = {
        "model_sha256": request.bundle.onnx_sha256,
        "preprocessing_sha256": request.bundle.sha256_of(PREPROCESSING_FILE),
    }
    recorded = table.manifest["request"]
    if request.embeddings and not recorded.get("embeddings"):
        _log.warning("no prediction of %s can be reused: it has no embeddings", table.folder)
        return nothing, [], unmeasured
    differing = [key for key, value in wanted.items() if recorded.get(key) != value]
    if differing or recorded["top_k"] < request.kept:
        what = differing[0] if differing else "top_k"
        _log.warning("no prediction of %s can be reused: its %s differs", table.folder, what)
        return nothing, [], unmeasured
    labels, blocks, spans = request.bundle.labels(), [nothing], []
    if table.is_csv:
        blocks += [_read_records(_read_csv(file), labels, request.kept)[0] for file in table.files]
        return np.concatenate(blocks), [], unmeasured
    samples, columns = [], _columns_of(request)
    for file in table.files:
        content = file.content()
        blocks.append(_read_records(read_part(content, columns), labels, request.kept)[0])
        samples.append(ImageSample.from_text(read_image_sample(content)))
        if request.trust_mtime:
            spans.append(_span(file, content))
    return np.concatenate(blocks), spans, ImageSample.join(samples)


def _read_csv(file: StoredFile) -> "pa.Table":
    import pyarrow as pa

    with file.opened() as lines:
        return pa.Table.from_pandas(read_csv(lines))


def _columns_of(request: ScoringRequest) -> tuple[str, ...]:
    """The required columns of a part."""
    further = _FURTHER_COLUMNS if request.kept > 1 else ()
    return (*_COLUMNS, *further, *((EMBEDDING,) if request.embeddings else ()))


def _read_records(
    rows: "pa.Table", labels: Sequence[str], top_k: int
) -> tuple[Records, npt.NDArray[np.intp]]:
    """The scored rows among `rows` as records, and their indices."""
    import pyarrow.compute as pc

    is_scored = pc.is_null(rows["error"])
    places = np.array(pc.indices_nonzero(is_scored).to_pylist(), np.intp)
    rows = rows.filter(is_scored)
    has_embeddings = EMBEDDING in rows.column_names
    size = rows.schema.field(EMBEDDING).type.list_size if has_embeddings else 0
    records = np.zeros(len(rows), record_type(top_k, size))
    if has_embeddings:
        records["embedding"] = matrix_of(rows[EMBEDDING])
    digests = "".join(rows["image_sha256"].to_pylist())
    records["sha256"] = np.frombuffer(bytes.fromhex(digests), "V32")
    records["class_indices"][:, 0] = _numbers(rows["class_index"], np.int32)
    records["probabilities"][:, 0] = _numbers(rows["probability"], np.float32)
    names = text_array(labels)
    for place in range(1, top_k):
        chosen, values = _further_predictions(rows, place)
        records["class_indices"][:, place] = _numbers(pc.index_in(chosen, value_set=names), np.int32)
        records["probabilities"][:, place] = _numbers(values, np.float32)
    records["width"] = _numbers(rows["width"], np.int32)
    records["height"] = _numbers(rows["height"], np.int32)
    return records, places


def _numbers(column: "pa.ChunkedArray", of: type[Number]) -> npt.NDArray[Number]:
    return numbers_of(column.cast(np.dtype(of).name), of)


def _further_predictions(rows: "pa.Table", place: int) -> tuple["pa.ChunkedArray", "pa.ChunkedArray"]:
    import pyarrow.compute as pc

    if "top_labels" in rows.column_names:
        return pc.list_element(rows["top_labels"], place), pc.list_element(rows["top_probabilities"], place)
    return rows[f"label_{place + 1}"], rows[f"probability_{place + 1}"]


def _is_usable(records: Records, max_pixels: int) -> npt.NDArray[np.bool_]:
    """Mask of the records with valid probabilities and an image within the pixel limit; bool [records]."""
    sizes: npt.NDArray[np.int64] = records["width"].astype(np.int64) * records["height"]
    chosen: Probabilities = records["probabilities"]
    # NaN fails both comparisons.
    usable: npt.NDArray[np.bool_] = (sizes <= max_pixels) & ((chosen >= 0) & (chosen <= 1 + ROUNDING)).all(
        axis=1
    )
    return usable


def _read_unchangeable(
    name: str,
    sha256: str,
    size: int,
    labels: tuple[str, ...],
    top_k: int,
    max_pixels: int,
    columns: tuple[str, ...],
) -> dict[tuple[str, int, int, int], np.void]:
    """The scored rows of one part by path, size, time and inode; empty if the part has been replaced."""
    try:
        content = StoredFile(parse_location(name), sha256, size, "").content()
    except DamagedTable:
        return {}
    records, places = _read_records(read_part(content, columns), labels, top_k)
    facts = read_file_facts(content)
    paths = read_part(content, ["image_path"])["image_path"].to_pylist()
    return {
        (paths[place], *map(int, facts[place])): record
        for place, record, usable in zip(places, records, _is_usable(records, max_pixels), strict=True)
        if len(facts) and usable
    }


def _span(file: StoredFile, content: bytes) -> _Span:
    paths = read_part(content, ["image_path"])["image_path"]
    return paths[0].as_py(), paths[-1].as_py(), absolute(file.path), file.sha256, file.size
