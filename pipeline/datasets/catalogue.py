"""The catalogue of a dataset: one row for each image file, written as Parquet, before anything is decoded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pixelmill.pipeline.images import Pixels

DOWNLOADS_FOLDER = "downloads"
"""In a store: what was downloaded, and what is known of the files of datasets."""
CATALOGUES_FOLDER = "catalogues"
"""In the folder above: the catalogues, each named after its content."""
SLICE = "slice:"
"""What the names of columns for further columns of the source begin with: `slice:camera`."""
Part = Literal["train", "validation", "test"]
"""The split that a source assigns by itself: `test_path`, a folder `train/`, a column `split`."""


@dataclass(frozen=True)
class ListedImage:
    """One image of a source, as it was found, before its content is read.

    Attributes:
        name: Its path relative to the source, with `/` between parts, as text (`file_names.escape_path`).
        place: What the source's reader needs to read it: a path, a member of an archive, a row.
        origin: What a person needs to find it: a full path, an address, `archive.zip!member`; escaped.
        class_name: Its class, in Unicode normalization form C.
        part: The split that the source assigns to it; None if the split is still to be chosen.
        group: All images of one group are in the same split; None if it belongs to no group.
        slices: Further columns of a table, by name, for the evaluation of parts of the data.
        stamp: Changes when the content changes: size and time of modification, or an ETag; empty if unknown.
        sha256: SHA-256 of the content, in hexadecimal, where the source knows it without reading; else empty.
    """

    name: str
    place: str
    origin: str
    class_name: str
    part: Part | None = None
    group: str | None = None
    slices: Mapping[str, str] = field(default_factory=dict)
    stamp: str = ""
    sha256: str = ""


class Reader(Protocol):
    """Reads the images of a source. It is sent to other processes, so it is small and can be pickled."""

    def read(self, place: str) -> bytes | Pixels:
        """The bytes of an image file, or the pixels of an image that is not a file.

        Args:
            place: The `place` of a `ListedImage`.

        Returns:
            The content of a file in a known format, or uint8 [height, width] or [height, width, channels].

        Raises:
            ImageFailure: It cannot be read.
        """


@dataclass(frozen=True)
class Listing:
    """What a source offers.

    Attributes:
        images: Consumed once; a million of them are never in memory together.
        reader: Reads an image by its `place`.
        class_names: The classes that the source defines by itself, in their order; empty if they are those
            of the images.
        provenance: A description of where the data came from.
        warnings: Problems that deserve attention, one line each; complete once `images` is consumed.
        left_out: Number of files left out, by extension or reason; complete once `images` is consumed.
    """

    images: Iterable[ListedImage]
    reader: Reader
    class_names: tuple[str, ...]
    provenance: str
    warnings: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalogue:
    """A listing with the hash of every content, as a Parquet file.

    Columns: `name`, `place`, `origin`, `class_name`, `part`, `group`, `sha256`, `stamp`, `error` (strings),
    and one string column `slice:NAME` for each further column of the source. `part` and `group` are null
    where unknown; `sha256` is null, and `error` says why, for an image that could not be read.

    Attributes:
        path: The Parquet file.
        reader: Reads an image by its `place`.
    """

    path: Path
    reader: Reader
