"""Reading of the members of an archive, by their offsets."""

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import FailureCode, ImageFailure
from pixelmill.pipeline.scoring.image_archives import DAMAGES, DEFLATED, STORED, open_stream
from pixelmill.pipeline.scoring.listing import ListedImage
from pixelmill.pipeline.scoring.sources import ArchiveFacts, ArchiveForm, ImageSource
from pixelmill.pipeline.scoring.worker.file_reader import require_regular_file
from pixelmill.pipeline.storage import local_path

_CHUNK = 1 << 20
_ZIP_HEADER = struct.Struct("<4sHHHHHIIIHH")
_ZIP_MAGIC = b"PK\x03\x04"


@dataclass
class ArchiveReader:
    """Reads members of an archive. Of a compressed tar archive, it is fast only going forward."""

    source: ImageSource
    _opened: ExitStack = field(default_factory=ExitStack)
    _stream: BinaryIO | None = None

    def __call__(self, images: Sequence[ListedImage], /) -> list[bytes | ImageFailure]:
        """See `Reader`.

        Raises:
            WorkError: The archive is gone, or was modified since it was listed.
        """
        read, stream = _MEMBER_OF.get(self._facts.form, _read_compressed_member), self._open()
        return [_content_of(read, stream, image) for image in images]

    @property
    def _facts(self) -> ArchiveFacts:
        return cast(ArchiveFacts, self.source.archive)

    def _open(self) -> BinaryIO:
        """The archive, which must still be the one that was listed."""
        place, facts = local_path(self.source.place), self._facts
        try:
            found = place.stat()
            if self._stream is None:
                self._stream = self._opened.enter_context(open_stream(place, facts.form))
        except OSError as error:
            raise _lost(self.source, error.strerror or str(error)) from error
        if (found.st_size, found.st_mtime_ns) != (facts.size, facts.modified_ns):
            raise _lost(self.source, "it was modified during the run")
        return self._stream


def _content_of(
    read: Callable[[BinaryIO, ListedImage], bytes], stream: BinaryIO, image: ListedImage
) -> bytes | ImageFailure:
    try:
        require_regular_file(image)
        return read(stream, image)
    except ImageFailure as failure:
        return failure
    except (*DAMAGES, struct.error) as error:
        return ImageFailure(FailureCode.CORRUPT, f"the member of the archive is damaged ({error})")


def _read_tar_member(stream: BinaryIO, image: ListedImage) -> bytes:
    stream.seek(image.inode)
    content = stream.read(image.size)
    if len(content) != image.size:
        raise _damaged(f"{len(content)} of {image.size} bytes are left")
    return content


def _read_compressed_member(stream: BinaryIO, image: ListedImage) -> bytes:
    # In large steps: `seek` of Python's decompressing streams goes forward by 8 kB at a time.
    while (rest := image.inode - stream.tell()) > 0:
        if not stream.read(min(rest, _CHUNK)):
            break
    return _read_tar_member(stream, image)


def _read_zip_member(stream: BinaryIO, image: ListedImage) -> bytes:
    """One member, decompressed to no more than its listed size, whatever it claims; its CRC is checked."""
    stream.seek(image.inode)
    magic, _, _, method, *_, name, extra = _ZIP_HEADER.unpack(stream.read(_ZIP_HEADER.size))
    if magic != _ZIP_MAGIC:
        raise _damaged("it has no header")
    stream.seek(name + extra, os.SEEK_CUR)
    content = _READ[method](stream, image.size)
    if len(content) != image.size or zlib.crc32(content) != image.modified_ns:
        raise _damaged("its size or its CRC differ")
    return content


def _inflate(stream: BinaryIO, size: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = bytearray()
    # Of a compressed size that nothing vouches for, none is assumed.
    while not inflater.eof and len(content) <= size:
        data = inflater.unconsumed_tail or stream.read(min(size + 64, _CHUNK))
        if not data:
            break
        content += inflater.decompress(data, size + 1 - len(content))
    return bytes(content)


_READ: dict[int, Callable[[BinaryIO, int], bytes]] = {
    STORED: lambda stream, size: stream.read(size),
    DEFLATED: _inflate,
}


_MEMBER_OF: dict[ArchiveForm, Callable[[BinaryIO, ListedImage], bytes]] = {
    "zip": _read_zip_member,
    "tar": _read_tar_member,
}


def _damaged(reason: str) -> ImageFailure:
    return ImageFailure(FailureCode.CORRUPT, f"the member of the archive is damaged: {reason}")


def _lost(source: ImageSource, reason: str) -> WorkError:
    return WorkError(
        f"the archive {printable(str(source.place))} can no longer be read ({reason})",
        "the archive that was listed",
        "Run the same command again once it is back; finished shards are kept.",
    )
