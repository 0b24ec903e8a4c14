"""From a listing to a catalogue: the hash of every content, reading only the files that have changed."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from logging import getLogger
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pixelmill.pipeline.artifacts import canonical_json, flush_to_disk, scratch_folder, sha256_of
from pixelmill.pipeline.datasets import RawDataset
from pixelmill.pipeline.datasets.catalogue import (
    CATALOGUES_FOLDER,
    SLICE,
    Catalogue,
    ListedImage,
    Listing,
    Reader,
)
from pixelmill.pipeline.datasets.catalogue_rows import read_rows
from pixelmill.pipeline.datasets.class_folders import natural_order
from pixelmill.pipeline.datasets.contents import Contents, hash_content
from pixelmill.pipeline.datasets.corrections import Corrections, Corrector
from pixelmill.pipeline.datasets.duplicates import duplicate_warnings, find_contradictions, require_enough
from pixelmill.pipeline.datasets.exclusions import Exclusions
from pixelmill.pipeline.datasets.hash_cache import HashCache
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.images import ImageFailure
from pixelmill.pipeline.progress import progress

_log = getLogger(__name__)
_NONE = Exclusions()
_BATCH = 4096
_BATCHES_BETWEEN_SAVES = 16
# Several reads at once hide the latency of disks and networks.
_READERS = 8
_STRINGS = ("name", "place", "origin", "class_name", "part", "group", "sha256", "stamp", "error")


class _Hashed:
    """A listed image with the hash of its content, or the reason why it has none."""

    __slots__ = ("error", "image", "sha256")

    def __init__(self, image: ListedImage, sha256: str | None, error: str | None = None) -> None:
        self.image, self.sha256, self.error = image, sha256, error


def write_catalogue(
    source: str,
    listing: Listing,
    cache: Path,
    corrections: Corrections | None = None,
    exclusions: Exclusions = _NONE,
    *,
    verify_data: bool = False,
    for_training: bool = True,
) -> RawDataset:
    """Hash the images of a listing and write its catalogue.

    Warnings about the data are logged and kept with the dataset.

    Args:
        source: The name of the source in the recipe.
        listing: The images; consumed.
        cache: Where the catalogue and the hashes are kept.
        corrections: Corrections of labels.
        exclusions: Contents that are left out.
        verify_data: Whether to read files again whose size and time have not changed.
        for_training: Whether each class must have enough images for its splits.

    Raises:
        RequestError: A class has too few distinct images for its splits, or corrections contradict each other
            or have a label that is no class.
    """
    corrector = Corrector(corrections or Corrections({}, {}), listing.class_names)
    hashes = HashCache(cache / "hashes" / f"{_short_hash(listing.provenance)}.npy")
    digests = _Digests()
    catalogues = cache / CATALOGUES_FOLDER
    catalogues.mkdir(parents=True, exist_ok=True)
    with scratch_folder("catalogue", catalogues) as folder:
        written = folder / "catalogue.parquet"
        kept = _Kept(exclusions, _hash_images(listing, hashes, verify_data))
        _write(written, _correct(kept, corrector), digests)
        flush_to_disk(written)
        path = catalogues / f"{sha256_of(written)[:32]}.parquet"
        written.replace(path)
    catalogue = Catalogue(path, listing.reader)
    dropped = find_contradictions(rows := read_rows(catalogue))
    title, applied = printable(listing.provenance), corrector.applied
    warnings = [*listing.warnings, *applied.warnings(), *duplicate_warnings(title, catalogue, rows, dropped)]
    for line in warnings:
        _log.warning("%s", line)
    if for_training:
        require_enough(title, rows, dropped)
    return RawDataset(
        source=source,
        catalogue=catalogue,
        class_names=listing.class_names or tuple(sorted(rows.class_names, key=natural_order)),
        fingerprint=_hash_all(digests.facts()[~dropped]),
        provenance=listing.provenance,
        names_sha256=_hash_all(digests.names()),
        warnings=tuple(warnings),
        left_out=dict(listing.left_out),
        corrections={} if corrections is None else applied.counts(),
        exclusions=exclusions,
        excluded=kept.left_out,
    )


class _Digests:
    """SHA-256 of each row: of what decides the fingerprint, and of all but where it is."""

    def __init__(self) -> None:
        self._facts, self._names = bytearray(), bytearray()

    def add(self, hashed: _Hashed) -> None:
        image = hashed.image
        facts = [hashed.sha256, image.class_name, image.part, image.group]
        self._facts += hashlib.sha256(canonical_json(facts).encode()).digest()
        names = [image.name, hashed.error, *facts, dict(image.slices)]
        self._names += hashlib.sha256(canonical_json(names).encode()).digest()

    def facts(self) -> Contents:
        return np.frombuffer(self._facts, "S32")

    def names(self) -> Contents:
        return np.frombuffer(self._names, "S32")


def _hash_all(digests: Contents) -> str:
    """A hash that does not depend on the order of the rows."""
    return hashlib.sha256(np.sort(digests).view(np.uint8).data).hexdigest()


def _hash_images(listing: Listing, hashes: HashCache, verify_data: bool) -> Iterator[list[_Hashed]]:
    is_complete = False
    with progress("hash", None, "images") as advance, ThreadPoolExecutor(_READERS, "hash") as threads:
        try:
            for number, images in enumerate(_batches(listing.images), 1):
                known = [""] * len(images) if verify_data else hashes.find(images)
                known = [image.sha256 or sha256 for image, sha256 in zip(images, known, strict=True)]
                unknown = [image for image, sha256 in zip(images, known, strict=True) if not sha256]
                found = iter(_read_all(threads, listing.reader, unknown))
                batch = [
                    _Hashed(image, sha256) if sha256 else next(found)
                    for image, sha256 in zip(images, known, strict=True)
                ]
                for hashed in batch:
                    if hashed.sha256 and not hashed.image.sha256:
                        hashes.add(hashed.image, hashed.sha256)
                yield batch
                advance(len(images), "")
                if unknown and number % _BATCHES_BETWEEN_SAVES == 0:
                    hashes.save(is_complete=False)
            is_complete = True
        finally:
            hashes.save(is_complete)


class _Kept:
    """The images whose contents are not excluded, and the number of the others."""

    def __init__(self, exclusions: Exclusions, batches: Iterable[list[_Hashed]]) -> None:
        self.left_out = 0
        self._exclusions, self._batches = exclusions, batches

    def __iter__(self) -> Iterator[list[_Hashed]]:
        for batch in self._batches:
            kept = [hashed for hashed in batch if hashed.sha256 not in self._exclusions]
            self.left_out += len(batch) - len(kept)
            yield kept


def _correct(batches: Iterable[list[_Hashed]], corrector: Corrector) -> Iterator[list[_Hashed]]:
    for batch in batches:
        kept = []
        for hashed in batch:
            image = corrector.correct(hashed.image, hashed.sha256 or "")
            if image is not None:
                hashed.image = image
                kept.append(hashed)
        if kept:
            yield kept
    corrector.finish()


def _batches(images: Iterable[ListedImage]) -> Iterator[list[ListedImage]]:
    remaining = iter(images)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


def _read_all(
    threads: ThreadPoolExecutor, reader: Reader, images: Sequence[ListedImage]
) -> Iterable[_Hashed]:
    parts = [images[start::_READERS] for start in range(_READERS)]
    found = list(threads.map(lambda part: [_read(reader, image) for image in part], parts))
    return (found[index % _READERS][index // _READERS] for index in range(len(images)))


def _read(reader: Reader, image: ListedImage) -> _Hashed:
    try:
        return _Hashed(image, hash_content(reader.read(image.place)).hexdigest())
    except ImageFailure as failure:
        return _Hashed(image, None, str(failure))


def _write(path: Path, batches: Iterable[list[_Hashed]], digests: _Digests) -> None:
    writer: pq.ParquetWriter | None = None
    slices: tuple[str, ...] = ()
    try:
        for batch in batches:
            if writer is None:
                slices = tuple(sorted({name for hashed in batch for name in hashed.image.slices}))
                writer = pq.ParquetWriter(path, _schema(slices), write_page_checksum=True)
            writer.write_batch(_as_arrow(batch, slices))
            for hashed in batch:
                digests.add(hashed)
        if writer is None:
            writer = pq.ParquetWriter(path, _schema(slices))
    finally:
        if writer is not None:
            writer.close()


def _schema(slices: Sequence[str]) -> pa.Schema:
    names = [*_STRINGS, *(f"{SLICE}{name}" for name in slices)]
    return pa.schema([pa.field(name, pa.string()) for name in names])


def _as_arrow(batch: Sequence[_Hashed], slices: Sequence[str]) -> pa.RecordBatch:
    images = [hashed.image for hashed in batch]
    columns = {
        "name": [image.name for image in images],
        "place": [image.place for image in images],
        "origin": [image.origin for image in images],
        "class_name": [image.class_name for image in images],
        "part": [image.part for image in images],
        "group": [image.group for image in images],
        "sha256": [hashed.sha256 for hashed in batch],
        "stamp": [image.stamp for image in images],
        "error": [hashed.error for hashed in batch],
        **{f"{SLICE}{name}": [image.slices.get(name) for image in images] for name in slices},
    }
    return pa.RecordBatch.from_pydict(columns, _schema(slices))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
