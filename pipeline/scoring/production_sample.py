"""The sample of a model's last production batch, on which a later version is tried before it is promoted.

`models/NAME/production_sample.parquet` lists images of the last table that was scored with an alias of the
model. Images of the batch are neither copied nor changed.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from logging import getLogger
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelmill.pipeline.artifacts import read_content, replacing
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.predictions.identities import read_identities
from pixelmill.pipeline.predictions.table import StoredTable, read_table
from pixelmill.pipeline.registry import aliases_of
from pixelmill.pipeline.registry.places import model_folder
from pixelmill.pipeline.scoring import PredictionTable
from pixelmill.pipeline.scoring.sources import ImageSource, source_of_table
from pixelmill.pipeline.storage import Location, is_remote_error

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_FILE = "production_sample.parquet"
MOST_IMAGES = 1000
"""The largest number of images in a sample."""
_COLUMNS = ["image_path", "image_sha256"]
_FACTS = b"pixelmill.batch"
_SOURCE_FACTS = ("source", "root", "archive_size", "archive_modified_ns", "max_image_memory")
_MAX_FILE_SIZE = 64 * 2**20
_log = getLogger(__name__)


@dataclass(frozen=True)
class BatchFacts:
    """The batch that a sample was drawn from.

    Attributes:
        images: The folder that was scored, a path or an address; or a list of paths.
        scored: Number of images that were scored.
        model: The version that scored them, `name@version`.
        alias: The alias that it was scored with.
        run_id: The scoring run.
        scored_at: Its time in UTC, ISO 8601.
        source: What kind of source the images are, and its root, unless they are a folder.
    """

    images: str
    scored: int
    model: str
    alias: str
    run_id: str
    scored_at: str
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def image_source(self) -> ImageSource:
        """Where its images are."""
        return source_of_table({"images": self.images, **self.source})


@dataclass(frozen=True)
class ProductionSample:
    """Images of a batch: their paths relative to the folder, escaped as in the table, and their SHA-256."""

    batch: BatchFacts
    paths: tuple[str, ...]
    sha256: tuple[str, ...]


def keep_production_sample(store: Location, reference: str, table: PredictionTable) -> None:
    """Draw a sample of a finished table, if it was scored with an alias of a registered model.

    Every scored row has the same chance to be drawn. A failure is logged, and never fails the scoring.

    Args:
        store: The artifacts root.
        reference: The model as the user gave it.
        table: The table.
    """
    name, _, alias = reference.partition("@")
    if not alias or alias.isdecimal() or "://" in reference or os.path.isdir(reference):  # noqa: PTH112
        return
    try:
        if alias in aliases_of(store, name):
            _write(model_folder(store, name) / SAMPLE_FILE, _draw(table, alias))
    except Exception as error:
        if not isinstance(error, PixelmillError | OSError | ValueError) and not is_remote_error(error):
            raise
        _log.info("no sample of this batch is kept for the gate: %s", " ".join(str(error).split()))


def read_production_sample(store: Location, name: str) -> ProductionSample | None:
    """The sample of the last production batch of a model; None if there is none that can be read."""
    import pyarrow.parquet as pq

    path = model_folder(store, name) / SAMPLE_FILE
    try:
        if not path.exists():
            return None
        rows = pq.read_table(io.BytesIO(read_content(path, _MAX_FILE_SIZE)))
        batch = BatchFacts(**json.loads(rows.schema.metadata[_FACTS]))
        paths, sha256 = (tuple(rows[column].to_pylist()) for column in _COLUMNS)
    except (OSError, KeyError, TypeError, ValueError) as error:
        _log.warning("the sample of the last batch cannot be read: %s", " ".join(str(error).split()))
        return None
    return ProductionSample(batch, paths, sha256)


def _draw(table: PredictionTable, alias: str) -> ProductionSample:
    manifest = table.manifest
    run = manifest["run"]
    seed = int.from_bytes(hashlib.sha256(run["run_id"].encode()).digest()[:8])
    rows = read_table(table.folder, lambda stored: _smallest(stored, np.random.default_rng(seed)))
    batch = BatchFacts(
        images=manifest["request"]["images"],
        scored=manifest["scored"],
        model=f"{run['model_name']}@{run['model_version']}",
        alias=alias,
        run_id=run["run_id"],
        scored_at=run["scored_at"],
        source={name: manifest["request"][name] for name in _SOURCE_FACTS if name in manifest["request"]},
    )
    paths, sha256 = (tuple(rows[column].to_pylist()) for column in _COLUMNS)
    return ProductionSample(batch, paths, sha256)


def _smallest(table: StoredTable, rng: np.random.Generator) -> "pa.Table":
    """The rows that draw the smallest numbers, sorted by path, with one block in memory at a time."""
    import pyarrow as pa

    kept: pa.Table | None = None
    numbers = np.zeros(0)
    for block in _scored_rows(table):
        rows = pa.concat_tables([kept, block]) if kept is not None else block
        numbers = np.concatenate([numbers, rng.random(len(block))])
        chosen = np.argsort(numbers, kind="stable")[:MOST_IMAGES]
        kept, numbers = rows.take(pa.array(chosen)), numbers[chosen]
    if kept is None:
        return pa.table({name: pa.array([], pa.string()) for name in _COLUMNS})
    return kept.sort_by("image_path")


def _scored_rows(table: StoredTable) -> "Iterator[pa.Table]":
    """The paths and hashes of the scored rows."""
    import pyarrow.compute as pc

    for rows in read_identities(table):
        yield rows.filter(pc.equal(rows["status"], "scored")).select(_COLUMNS)


def _write(path: Location, sample: ProductionSample) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"image_path": sample.paths, "image_sha256": sample.sha256}
    rows = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    rows = rows.replace_schema_metadata({_FACTS: json.dumps(asdict(sample.batch)).encode()})
    with replacing(path) as temporary:
        pq.write_table(rows, temporary, compression="zstd")
