"""Unpacking archives from anywhere: nothing leaves the folder, and nothing grows without end."""

import errno
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError

# Images hardly shrink, so a small archive that grows more than this is made to fill a disk.
MAX_RATIO = 200
_FREE_BYTES = 256 << 20
_CHUNK = 1 << 20
_MAGIC = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_TAR_MAGIC = slice(257, 262)
_SHOWN = 200
_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
Format = Literal["zip", "tar", "gzip", "zstd"]


@dataclass(frozen=True)
class UnpackingLimits:
    """Limits on an archive.

    Attributes:
        max_files: Maximum number of members.
        max_bytes: Maximum size of all members together, in bytes.
    """

    max_files: int
    max_bytes: int


def unpack(archive: Path, title: str, folder: Path, limits: UnpackingLimits) -> None:
    """Unpack the files of an archive to an empty folder.

    The format is told from the content: zip, tar, or tar compressed with gzip or zstd.

    Args:
        archive: The archive.
        title: What errors call it.
        folder: An empty folder.
        limits: What is refused.

    Raises:
        RequestError: It is no such archive, or damaged, encrypted or beyond a limit, or a member is a link or
            a device, has a name that leads out of the folder, or the name of an earlier one.
    """
    budget = _Budget(title, limits, max(_FREE_BYTES, MAX_RATIO * archive.stat().st_size))
    import zstandard

    damages = (
        *(tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile, gzip.BadGzipFile, zlib.error),
        *(lzma.LZMAError, zstandard.ZstdError, EOFError, NotImplementedError, ValueError, struct.error),
    )
    try:
        if archive_format(archive, title) == "zip":
            _unpack_zip(archive, folder, budget)
        else:
            _unpack_tar(archive, folder, budget)
    except damages as error:
        raise _damaged(title, error) from error
    except OSError as error:
        # A damaged archive leads to a place before its beginning.
        if error.errno != errno.EINVAL:
            raise
        raise _damaged(title, error) from error


def archive_format(archive: Path, title: str) -> Format:
    """The format of an archive, by its first bytes.

    Raises:
        RequestError: It is none of the formats that can be unpacked.
    """
    with archive.open("rb") as file:
        start = file.read(512)
    found = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if found is None and start[_TAR_MAGIC] == b"ustar":
        found = "tar"
    if found is None:
        is_page = start.lstrip()[:1] == b"<"
        raise RequestError(
            f"{printable(title)} is {'a page of HTML or XML' if is_page else 'no archive'}",
            "a .zip, .tar, .tar.gz or .tar.zst file",
            "Set dataset.path to one; for a folder, set dataset.source=folder.",
        )
    return cast(Format, found)


class _Budget:
    """Counts members and bytes, and refuses what is beyond the limits."""

    def __init__(self, title: str, limits: UnpackingLimits, max_grown: int) -> None:
        self.title = title
        self._limits = limits
        self._max_grown = max_grown
        self._files = self._bytes = 0

    def add_member(self, name: str, size: int) -> str:
        """Count a member, and return its path in the folder; empty for the folder itself.

        Raises:
            RequestError: There are too many, it is too large, or its name leads out of the folder.
        """
        self._files += 1
        if self._files > self._limits.max_files:
            raise RequestError(
                f"{printable(self.title)} has more than {self._limits.max_files} files",
                "an archive within dataset.max_files",
                "Raise dataset.max_files if you trust the archive.",
            )
        self._require_room(size)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\\" in name:
            raise self.refuse(name, "has a name that leads out of the archive")
        return "/".join(parts)

    def add_bytes(self, count: int) -> None:
        """Count bytes that were unpacked.

        Raises:
            RequestError: They are too many.
        """
        self._bytes += count
        self._require_room(0)
        if self._bytes > self._max_grown:
            raise RequestError(
                f"{printable(self.title)} unpacks to more than {self._max_grown} bytes",
                f"files at most {MAX_RATIO} times as large as the archive",
                "Unpack it yourself if you trust it, and set dataset.source=folder.",
            )

    def refuse(self, name: str, reason: str) -> RequestError:
        """The error of a member."""
        return RequestError(
            f"{printable(self.title)}: its member {printable(name[:_SHOWN])!r} {reason}",
            "regular files and folders below the archive's own folder, each once",
            "Make the archive anew from plain files.",
        )

    def _require_room(self, size: int) -> None:
        if self._bytes + size > self._limits.max_bytes:
            raise RequestError(
                f"{printable(self.title)} unpacks to more than {self._limits.max_bytes} bytes",
                "an archive within dataset.max_bytes",
                "Raise dataset.max_bytes if you trust the archive.",
            )


class _Counted:
    """A stream whose bytes are counted when they are read; `tail` has the last ones."""

    def __init__(self, raw: BinaryIO, budget: _Budget) -> None:
        self._raw, self._budget = raw, budget
        self.tail = b""

    def read(self, size: int = _CHUNK) -> bytes:
        content = self._raw.read(size)
        self._budget.add_bytes(len(content))
        self.tail = (self.tail + content)[-tarfile.BLOCKSIZE :]
        return content


def _unpack_zip(archive: Path, folder: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise budget.refuse(member.filename, "is a link" if kind == stat.S_IFLNK else "is a device")
            if member.flag_bits & 1:
                raise budget.refuse(member.filename, "is encrypted")
            name = budget.add_member(member.filename, member.file_size)
            if not member.is_dir():
                with file.open(member) as content:
                    _write(_Counted(cast(BinaryIO, content), budget), folder, name, budget)


def _unpack_tar(archive: Path, folder: Path, budget: _Budget) -> None:
    with _decompressed(archive) as raw:
        counted = _Counted(raw, budget)
        with tarfile.open(fileobj=cast(BinaryIO, counted), mode="r|") as tar:
            for member in tar:
                if reason := _special_kind(member):
                    raise budget.refuse(member.name, reason)
                try:
                    tarfile.data_filter(member, str(folder))
                except tarfile.FilterError as error:
                    raise budget.refuse(member.name, "leads out of the archive") from error
                name = budget.add_member(member.name, member.size)
                content = tar.extractfile(member)
                if content is not None:
                    _write(cast(BinaryIO, content), folder, name, budget)
                # Otherwise the archive keeps a description of every member.
                tar.members = []  # type: ignore[attr-defined]
        while counted.read():
            pass
        if counted.tail.strip(b"\0"):
            raise _damaged(budget.title, EOFError("its end is missing"))


def _special_kind(member: tarfile.TarInfo) -> str | None:
    """Why a member of a tar archive is neither a plain file nor a folder; None if it is one."""
    if member.issym() or member.islnk():
        return "is a link"
    if member.issparse():
        return "is a sparse file"
    return None if member.isreg() or member.isdir() else "is a device"


def _write(content: "BinaryIO | _Counted", folder: Path, name: str, budget: _Budget) -> None:
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            while chunk := content.read(_CHUNK):
                file.write(chunk)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise budget.refuse(name, "is in it twice, or a file and a folder") from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _NAME_ERRORS:
            raise
        raise budget.refuse(name, "has a name that this system does not allow") from error


@contextmanager
def _decompressed(archive: Path) -> Iterator[BinaryIO]:
    kind = archive_format(archive, str(archive))
    with archive.open("rb") as file:
        if kind == "gzip":
            with gzip.open(file) as raw:
                yield cast(BinaryIO, raw)
        elif kind == "zstd":
            import zstandard

            with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as raw:
                yield cast(BinaryIO, raw)
        else:
            yield file


def _damaged(title: str, error: Exception) -> RequestError:
    return RequestError(
        f"{printable(title)} cannot be unpacked ({type(error).__name__}: {error})",
        "a complete .zip, .tar, .tar.gz or .tar.zst file",
        "Download or make it anew.",
    )
