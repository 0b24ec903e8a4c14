"""Where the images of a run come from: a folder, a list of paths, or an archive.

`listing` lists a folder, `image_lists` a list, and `image_archives` an archive. A folder is sorted by
path; the rows of the others are in their own order, and a path may come twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pixelmill.pipeline.file_names import unescape
from pixelmill.pipeline.predictions.layout import SORTED_SOURCE
from pixelmill.pipeline.scoring.listing import ListedImage, list_images
from pixelmill.pipeline.scoring.skipped import SkippedFiles
from pixelmill.pipeline.storage import Location, absolute, has_latency, parse_location

if TYPE_CHECKING:
    import pyarrow as pa

STANDARD_INPUT = "-"
SourceKind = Literal["folder", "list", "archive"]
ArchiveForm = Literal["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]


@dataclass(frozen=True)
class ListFacts:
    """A list of paths, as it was when the run was planned.

    Attributes:
        form: The form of the file, a `TableForm`.
        sha256: The SHA-256 of the file, in hexadecimal.
        rows: The number of its rows.
        path_column: The column of the paths.
        label_column: The column of the true labels; None without one.
        columns: The names of its other columns, and the name of each in the table of predictions.
        table_schema: All columns of the list, as text of `schema_to_text`.
        passed_schema: Those that the table of predictions has, in the same way.
    """

    form: str
    sha256: str
    rows: int
    path_column: str
    label_column: str | None
    columns: dict[str, str]
    table_schema: str
    passed_schema: str


@dataclass(frozen=True)
class ArchiveFacts:
    """An archive, as it was when the run was planned.

    Attributes:
        form: Its form.
        size: Its size in bytes.
        modified_ns: Its modification time in nanoseconds.
        max_bytes: The largest member that is read, in bytes.
    """

    form: ArchiveForm
    size: int
    modified_ns: int
    max_bytes: int


@dataclass(frozen=True)
class ImageSource:
    """The images of a run.

    Attributes:
        kind: What it is.
        place: The folder, or the file of the list or archive.
        root: What relative paths are relative to: the folder itself, or the root of a list.
        listed: The facts of a list.
        archive: The facts of an archive.
    """

    kind: SourceKind
    place: Location
    root: Location
    listed: ListFacts | None = None
    archive: ArchiveFacts | None = None

    @classmethod
    def of_folder(cls, folder: Location) -> "ImageSource":
        """A folder with all its subfolders."""
        return cls("folder", folder, folder)

    @property
    def is_sorted(self) -> bool:
        """Whether each path comes once, in sorted order."""
        return self.kind == SORTED_SOURCE

    @property
    def has_latency(self) -> bool:
        """Whether each read waits for a network."""
        return has_latency(self.root)

    @property
    def has_columns(self) -> bool:
        """Whether its rows have other columns, or true labels."""
        return self.listed is not None and bool(self.listed.columns or self.listed.label_column)

    def describe(self) -> dict[str, Any]:
        """What must be equal for two requests to be of the same images, besides their place.

        Empty for a folder, whose listing may change between a run and its resumption.
        """
        if self.archive is not None:
            facts = self.archive
            return {"source": self.kind, "archive_size": facts.size, "archive_modified_ns": facts.modified_ns}
        if self.listed is None:
            return {}
        return {
            "source": self.kind,
            "root": absolute(self.root),
            "path_column": self.listed.path_column,
            "label_column": self.listed.label_column,
            "list_sha256": self.listed.sha256,
        }

    def place_of(self, path: str) -> Location:
        """The file of a row.

        Args:
            path: Its `image_path`.

        Raises:
            RequestError: It is an address that no installed package supports.
        """
        name = unescape(path)
        return parse_location(name) if "://" in name else self.root / name


def source_of_table(request: Mapping[str, Any]) -> ImageSource:
    """Where the images of a finished table are.

    Args:
        request: The `request` in the manifest of the table.
    """
    place = parse_location(request["images"])
    kind: SourceKind = request.get("source") or "folder"
    if kind != "archive":
        return ImageSource(kind, place, parse_location(request.get("root") or request["images"]))
    from pixelmill.pipeline.scoring.image_archives import form_of

    size, modified_ns = request["archive_size"], request["archive_modified_ns"]
    facts = ArchiveFacts(form_of(place.name) or "zip", size, modified_ns, request["max_image_memory"])
    return ImageSource(kind, place, place, archive=facts)


def is_standard_input(images: Location) -> bool:
    """Whether the images are a list on standard input."""
    return str(images) == STANDARD_INPUT


class Listing(Protocol):
    """The images of a source in the order of the table, each once."""

    def images(self) -> Iterator[ListedImage]:
        """The images."""

    def take(self, count: int) -> "pa.Table | None":
        """The other columns of the next `count` images that `images` has yielded; None if there are none."""


@dataclass(frozen=True)
class _FolderListing:
    folder: Location
    globs: Sequence[str]
    skipped: SkippedFiles

    def images(self) -> Iterator[ListedImage]:
        return list_images(self.folder, self.globs, self.skipped)

    def take(self, count: int) -> "pa.Table | None":
        return None


def open_listing(source: ImageSource, globs: Sequence[str], skipped: SkippedFiles) -> Listing:
    """Begin to list the images of a source.

    Args:
        source: The images.
        globs: Shell patterns for the file names to list in a folder.
        skipped: Updated with what has been skipped so far.
    """
    if source.kind == "folder":
        return _FolderListing(source.place, globs, skipped)
    if source.kind == "archive":
        from pixelmill.pipeline.scoring.image_archives import ArchiveListing

        return ArchiveListing(source, globs, skipped)
    # Imported here, as workers and folders do not need the code that reads tables.
    from pixelmill.pipeline.scoring.image_lists import ListListing

    return ListListing(source)
