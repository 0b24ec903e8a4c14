"""Archives of images, .zip and .tar: their members are scored without unpacking them to disk.

A member is found by its offset. That of a compressed tar archive is an offset in the decompressed stream,
which has no index: each worker reads the stream from its beginning, and skips what other workers score.
"""

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pixelmill.pipeline.clutter import is_clutter
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.file_names import escape_path
from pixelmill.pipeline.images import FailureCode
from pixelmill.pipeline.scoring.listing import ListedImage, is_wanted
from pixelmill.pipeline.scoring.skipped import SkippedFiles
from pixelmill.pipeline.scoring.sources import ArchiveFacts, ArchiveForm, ImageSource
from pixelmill.pipeline.storage import local_path

if TYPE_CHECKING:
    import pyarrow as pa

ARCHIVE_FORMS: dict[str, ArchiveForm] = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".tar.bz2": "tar.bz2",
    ".tar.xz": "tar.xz",
}
"""The form of an archive by the end of its name."""
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
DAMAGES = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, NotImplementedError, ValueError, OSError),
)
"""The errors of Python's readers on a damaged archive."""
_OPENERS: dict[ArchiveForm, Callable[..., Any]] = {
    "zip": open,
    "tar": open,
    "tar.gz": gzip.open,
    "tar.bz2": bz2.open,
    "tar.xz": lzma.open,
}
_ENCRYPTED = 1


def form_of(name: str) -> ArchiveForm | None:
    """The form of an archive by its name; None if it is not the name of one."""
    return next((form for end, form in ARCHIVE_FORMS.items() if name.lower().endswith(end)), None)


def survey_archive(place: Path, form: ArchiveForm, max_bytes: int) -> ArchiveFacts:
    """Open an archive.

    Args:
        place: The file.
        form: Its form.
        max_bytes: The largest member that is read, in bytes.

    Raises:
        RequestError: It cannot be read.
    """
    try:
        with open_stream(place, form) as stream:
            if form == "zip":
                zipfile.ZipFile(stream).close()
            else:
                tarfile.open(fileobj=stream, mode="r:").close()
    except DAMAGES as error:
        raise RequestError(
            f"the archive {printable(str(place))}, which cannot be read ({error})",
            f"a file in the format that its name says, {form}",
            "Restore the archive, or correct its name.",
        ) from error
    facts = place.stat()
    return ArchiveFacts(form, facts.st_size, facts.st_mtime_ns, max_bytes)


@contextmanager
def open_stream(place: Path, form: ArchiveForm) -> Iterator[BinaryIO]:
    """The bytes of an archive; those of a compressed tar archive are decompressed while they are read."""
    with _OPENERS[form](place, "rb") as stream:
        yield cast(BinaryIO, stream)


@dataclass
class ArchiveListing:
    """The images of an archive in its own order; see `Listing`."""

    source: ImageSource
    globs: Sequence[str]
    skipped: SkippedFiles

    def images(self) -> Iterator[ListedImage]:
        """See `Listing`. Members are skipped by name as files of a folder are.

        A member that is a link or encrypted, or has an impossible name or that of an earlier one, is listed
        with its problem. If the archive is damaged, its last row stands for the rest, and has the path `/`.
        """
        facts = cast(ArchiveFacts, self.source.archive)
        seen: set[int] = set()  # Hashes, because there may be millions of names.
        try:
            with open_stream(local_path(self.source.place), facts.form) as stream:
                members = _zip_members(stream) if facts.form == "zip" else _tar_members(stream)
                for member in members:
                    if self._is_listed(member.path):
                        yield _checked(member, hash(member.path) in seen, facts.max_bytes)
                        seen.add(hash(member.path))
        except DAMAGES as error:
            yield ListedImage("/", 0, 0, 0, f"the archive is damaged, and the rest of it is lost ({error})")

    def take(self, count: int) -> "pa.Table | None":
        """See `Listing`."""
        return None

    def _is_listed(self, path: str) -> bool:
        *folders, name = path.split("/")
        for part in folders:
            if part.startswith(".") and part not in (".", ".."):
                self.skipped.count_hidden(part)
                return False
            if self.skipped.count_clutter(part):
                return False
        if name.startswith("."):
            self.skipped.count_hidden(name)
        elif is_wanted(name, self.globs) and not is_clutter(name):
            return True
        else:
            self.skipped.count_file(name)
        return False


def find_members(source: ImageSource, paths: Collection[str]) -> Iterator[ListedImage]:
    """The members with the given paths, in the order of the archive."""
    wanted = set(paths)
    for image in ArchiveListing(source, ("*",), SkippedFiles()).images():
        if image.path in wanted:
            wanted.remove(image.path)
            yield image
            if not wanted:
                return


def _checked(member: ListedImage, is_repeated: bool, max_bytes: int) -> ListedImage:
    problem = member.problem
    if ".." in member.path.split("/") or member.path.startswith("/"):
        problem = f"{FailureCode.BAD_PATH}: the name leads out of the archive"
    elif is_repeated:
        problem = f"{FailureCode.BAD_PATH}: an earlier member has the same name"
    elif problem is None and member.size > max_bytes:
        problem = f"{FailureCode.TOO_LARGE}: {member.size} bytes, over the limit of {max_bytes}"
    return member._replace(problem=problem)


def _zip_members(stream: BinaryIO) -> Iterator[ListedImage]:
    """The files of a zip archive, by the offset of their header; instead of a time, their CRC."""
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            problem = None
            if member.flag_bits & _ENCRYPTED:
                problem = f"{FailureCode.UNSUPPORTED}: encrypted"
            elif stat.S_ISLNK(member.external_attr >> 16):
                problem = f"{FailureCode.NOT_A_FILE}: a link"
            elif member.compress_type not in (STORED, DEFLATED):
                problem = f"{FailureCode.UNSUPPORTED}: compression method {member.compress_type}"
            if not member.is_dir():
                path = _path_of(member.filename)
                yield ListedImage(path, member.file_size, member.CRC, member.header_offset, problem)


def _tar_members(stream: BinaryIO) -> Iterator[ListedImage]:
    """The files of a tar archive, by the offset of their content.

    Raises:
        tarfile.ReadError: It ends without the mark of its end, or a header is damaged.
    """
    watched = _Watched(stream)
    with tarfile.open(fileobj=cast(BinaryIO, watched), mode="r:") as archive:
        while (member := archive.next()) is not None:
            cast(Any, archive).members.clear()  # Or it keeps them all.
            problem = None
            if member.issparse():
                problem = f"{FailureCode.UNSUPPORTED}: a sparse file"
            elif not member.isreg():
                kind = "a link" if member.issym() or member.islnk() else "a pipe or a device"
                problem = f"{FailureCode.NOT_A_FILE}: {kind}"
            if not member.isdir():
                time = int(member.mtime * 1_000_000_000)
                yield ListedImage(_path_of(member.name), member.size, time, member.offset_data, problem)
    # `tarfile` takes anything that is no header for the end.
    if len(watched.last) != tarfile.BLOCKSIZE or any(watched.last):
        raise tarfile.ReadError("it has no end mark")


@dataclass
class _Watched:
    """A stream that remembers what was read last."""

    stream: BinaryIO
    last: bytes = b""

    def read(self, size: int = -1) -> bytes:
        self.last = self.stream.read(size)
        return self.last

    def seek(self, place: int, whence: int = 0) -> int:
        return self.stream.seek(place, whence)

    def tell(self) -> int:
        return self.stream.tell()


def _path_of(name: str) -> str:
    return escape_path(name.removeprefix("./"))
