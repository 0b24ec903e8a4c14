"""Finding every split, version, check, sample and table that holds an image."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pixelmill.pipeline.artifacts import MANIFEST, read_json, read_manifest
from pixelmill.pipeline.bundles import TRAINING_IMAGES_FILE
from pixelmill.pipeline.datasets import ROWS_FILE, read_prepared
from pixelmill.pipeline.errors import PixelmillError, WorkError
from pixelmill.pipeline.forget import Holding, SearchResult
from pixelmill.pipeline.predictions.identities import read_identities
from pixelmill.pipeline.predictions.table import KIND, StoredTable, read_table
from pixelmill.pipeline.registry.checks import check_image, read_checks
from pixelmill.pipeline.registry.places import model_names, version_folder, version_numbers
from pixelmill.pipeline.scoring.production_sample import SAMPLE_FILE, read_production_sample
from pixelmill.pipeline.storage import Location, children, opened, workspace

_DEPTH_OF_TABLES = 3


def find_holders(store: Location, contents: Collection[str], roots: Sequence[Location]) -> SearchResult:
    """Find the places of a store, and the tables, that hold images.

    Args:
        store: The artifacts root.
        contents: The images, as SHA-256 in hexadecimal.
        roots: Tables, or folders with tables up to three levels below.
    """
    wanted = pa.array(sorted(contents), pa.string())
    search = _Search()
    search.add("the prepared datasets", partial(_in_splits, workspace(store), wanted))
    for name in model_names(store):
        for version in version_numbers(store, name):
            search.add(f"{name}@{version}", partial(_in_version, store, name, version, wanted))
        search.add(f"the checks of {name}", partial(_in_checks, store, name, contents))
        search.add(f"the sample of {name}", partial(_in_sample, store, name, contents))
    tables = [table for root in roots for table in find_tables(root)]
    for table in tables:
        search.add(str(table), partial(read_table, table, partial(_in_table, wanted)))
    return SearchResult(tuple(search.found), tuple(search.failed), len(tables))


class _Search:
    """Collects what is found; a place that cannot be read does not end the search."""

    def __init__(self) -> None:
        self.found: list[Holding] = []
        self.failed: list[str] = []

    def add(self, place: str, look: Callable[[], Collection[Holding]]) -> None:
        try:
            self.found += look()
        except (PixelmillError, OSError, pa.ArrowException) as error:
            self.failed.append(f"{place}: {' '.join(str(error).split())}")


def find_tables(root: Location) -> Iterator[Location]:
    """The folders of prediction tables at or below a folder, sorted; three levels deep at most."""
    yield from _tables_below(root, _DEPTH_OF_TABLES)


def _tables_below(folder: Location, depth: int) -> Iterator[Location]:
    manifest = folder / MANIFEST
    if manifest.is_file():
        if read_json(manifest).get("kind") == KIND:
            yield folder
        return
    if depth and folder.is_dir():
        for below in sorted(children(folder), key=str):
            if below.is_dir() and not below.name.startswith("."):
                yield from _tables_below(below, depth - 1)


def _in_splits(work: Path, wanted: pa.Array) -> list[Holding]:
    columns, chosen = ["sha256", "split", "name"], pc.field("sha256").isin(wanted)
    return [
        Holding(row["sha256"], "split", f"{folder.name}: {row['split']}", row["name"])
        for folder in read_prepared(work)
        for row in pq.read_table(folder / ROWS_FILE, columns=columns, filters=chosen).to_pylist()
    ]


def _in_version(store: Location, name: str, version: int, wanted: pa.Array) -> list[Holding]:
    folder = version_folder(store, name, version)
    if TRAINING_IMAGES_FILE not in read_manifest(folder)["files"]:
        raise WorkError(
            "a bundle without a list of its images", "one that a retraining made", "Look in its dataset."
        )
    with opened(folder / TRAINING_IMAGES_FILE) as file:
        rows = pq.read_table(file, columns=["sha256", "split"])
    chosen = rows.filter(pc.is_in(rows["sha256"], wanted)).to_pylist()
    return [Holding(row["sha256"], "version", f"{name}@{version}", row["split"]) for row in chosen]


def _in_checks(store: Location, name: str, contents: Collection[str]) -> list[Holding]:
    checks = read_checks(store, name)
    return [
        Holding(sha256, "permanent check", name, str(check_image(store, name, checks[sha256])))
        for sha256 in sorted(contents)
        if sha256 in checks
    ]


def _in_sample(store: Location, name: str, contents: Collection[str]) -> list[Holding]:
    sample = read_production_sample(store, name)
    if sample is None:
        return []
    return [
        Holding(sha256, "production sample", f"{name}: {SAMPLE_FILE}", path)
        for path, sha256 in zip(sample.paths, sample.sha256, strict=True)
        if sha256 in contents
    ]


def _in_table(wanted: pa.Array, table: StoredTable) -> list[Holding]:
    return [
        Holding(row["image_sha256"], "table", str(table.folder), row["image_path"])
        for rows in read_identities(table)
        for row in rows.filter(pc.is_in(rows["image_sha256"], wanted)).to_pylist()
    ]
