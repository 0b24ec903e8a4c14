"""Reading of the listed files. Each is read whole and checked to be the file that was listed."""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import FailureCode, ImageFailure
from pixelmill.pipeline.scoring.listing import UNKNOWN_SIZE, ListedImage, unescape
from pixelmill.pipeline.storage import Location, file_system, is_remote, read_content
from pixelmill.pipeline.storage.deep_paths import open_file

_MOST_BYTES = 1 << 30
# Opening must not block on a pipe that has replaced a file.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
# Updating access times would cost a write per file; only the file's owner may turn that off.
_UNNOTED = getattr(os, "O_NOATIME", 0)
# Measured with small files on disk, per second: 52,000 with 16 descriptors, 59,000 with 32, 69,000 with 64.
_OPEN_AT_ONCE = 32
_FETCHES = hasattr(os, "posix_fadvise")
_MACHINE_TROUBLE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_TRIES = 4
_CODES = frozenset(FailureCode)
CRASHES_WORKER = "crashes its worker"
"""The problem of a listed image that is known to crash its worker."""


class Reader(Protocol):
    """Reads the files of images."""

    def __call__(self, images: Sequence[ListedImage], /) -> list[bytes | ImageFailure]:
        """The bytes of each image, or why it cannot be read, in the order of the images."""


def reader_of(folder: Location) -> Reader:
    """The reader for a local or remote folder."""
    # Local files are opened together and read in turn; remote ones are fetched concurrently.
    if is_remote(folder):
        system, root = file_system(folder)
        return partial(_read_remote, system, root.rstrip("/"))
    return partial(_read_local, os.fspath(folder))


def read_again(folder: Location, path: str) -> bytes:
    """The current bytes of the file of a row.

    Raises:
        OSError: The file cannot be read.
    """
    return read_content(folder / unescape(path))


def _read_local(folder: str, images: Sequence[ListedImage]) -> list[bytes | ImageFailure]:
    contents: list[bytes | ImageFailure] = []
    try:
        # Resolve names relative to this folder, not each from the root.
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _MACHINE_TROUBLE:
            raise
        raise _no_source(folder, error.strerror or str(error)) from error
    try:
        for start in range(0, len(images), _OPEN_AT_ONCE):
            contents += _read_together(images[start : start + _OPEN_AT_ONCE], place)
    finally:
        os.close(place)
    return contents


def _read_together(images: Sequence[ListedImage], folder: int) -> list[bytes | ImageFailure]:
    """Open all files, so that the system prefetches them in parallel, then read one after the other."""
    opened: list[int | ImageFailure] = []
    contents: list[bytes | ImageFailure] = []
    try:
        for image in images:
            try:
                opened.append(_open(image, folder))
            except (OSError, ImageFailure) as error:
                opened.append(_failure(error))
        for image, descriptor in zip(images, opened, strict=True):
            try:
                contents.append(
                    descriptor if isinstance(descriptor, ImageFailure) else _read(image, descriptor)
                )
            except (OSError, ImageFailure) as error:
                contents.append(_failure(error))
    finally:
        for descriptor in opened:
            if isinstance(descriptor, int):
                os.close(descriptor)
    return contents


def _failure(error: OSError | ImageFailure) -> ImageFailure:
    if isinstance(error, ImageFailure):
        return error
    if error.errno in _MACHINE_TROUBLE:
        raise error
    return ImageFailure(FailureCode.UNREADABLE, error.strerror or "cannot be read")


def _open(image: ListedImage, folder: int) -> int:
    require_regular_file(image)
    path = unescape(image.path)
    try:
        descriptor = open_file(path, _FLAGS | _UNNOTED, folder)
    except PermissionError:
        descriptor = open_file(path, _FLAGS, folder)
    if _FETCHES:
        with suppress(OSError):  # Prefetching fails for anything but a file.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    return descriptor


def _read(image: ListedImage, descriptor: int) -> bytes:
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        raise ImageFailure(FailureCode.NOT_A_FILE, "no longer a regular file")
    if facts.st_size != image.size or facts.st_mtime_ns != image.modified_ns:
        raise ImageFailure(FailureCode.CHANGED, "modified since it was listed")
    data = os.read(descriptor, facts.st_size + 1)
    while 0 < len(data) < facts.st_size and (more := os.read(descriptor, facts.st_size - len(data))):
        data += more
    if len(data) != image.size:
        raise ImageFailure(FailureCode.CHANGED, f"{len(data)} bytes read, {image.size} listed")
    return data


def _read_remote(system: Any, root: str, images: Sequence[ListedImage]) -> list[bytes | ImageFailure]:
    return read_remote(system, [f"{root}/{unescape(image.path)}" for image in images], images, root)


def read_remote(
    system: Any, names: Sequence[str], images: Sequence[ListedImage], root: str
) -> list[bytes | ImageFailure]:
    """Fetch all files concurrently, as waiting for remote files takes no CPU time.

    Args:
        system: The fsspec file system.
        names: The path of each file in it.
        images: The files, as listed; a file of unknown size is fetched as it is.
        root: What is named if no file can be read.

    Raises:
        WorkError: Every one of several files fails, though it may exist.
    """
    contents: list[bytes | ImageFailure] = [ImageFailure(FailureCode.UNREADABLE, "not fetched")] * len(names)
    due = []
    for at, image in enumerate(images):
        try:
            require_regular_file(image)
            due.append(at)
        except ImageFailure as failure:
            contents[at] = failure
    for _ in range(_TRIES):
        if not due:
            break
        # Ranges, because `cat` treats names as patterns. One byte beyond the listed size detects a file that
        # has grown; an empty file has no valid range.
        sizes = [_MOST_BYTES if images[at].size == UNKNOWN_SIZE else images[at].size for at in due]
        replies = system.cat_ranges(
            [names[at] for at in due],
            [0 if size else None for size in sizes],
            [size + 1 if size else None for size in sizes],
            on_error="return",
        )
        for at, reply in zip(due, replies, strict=True):
            contents[at] = _check_remote(reply, images[at])
            if images[at].size == UNKNOWN_SIZE and _is_worth_another_try(contents[at]):
                contents[at] = _empty_or(contents[at], system, names[at])
        due = [at for at in due if _is_worth_another_try(contents[at])]
    if len(due) == len(names) > 1:
        # If every one of several files fails, the fault lies with the folder.
        raise _no_source(root, str(replies[0]))
    return contents


def _no_source(folder: str, reason: str) -> WorkError:
    return WorkError(
        f"{folder} is no longer readable ({reason})",
        "the folder that was listed",
        "Run the same command again once the folder is back; finished shards are kept.",
    )


def _check_remote(reply: bytes | Exception, image: ListedImage) -> bytes | ImageFailure:
    if isinstance(reply, bytes):
        if image.size == UNKNOWN_SIZE and len(reply) > _MOST_BYTES:
            return ImageFailure(FailureCode.TOO_LARGE, f"over the limit of {_MOST_BYTES} bytes")
        if image.size in (len(reply), UNKNOWN_SIZE):
            return reply
        return ImageFailure(FailureCode.CHANGED, "size changed since it was listed")
    failure = ImageFailure(FailureCode.UNREADABLE, str(reply) or type(reply).__name__)
    failure.__cause__ = reply
    return failure


def _empty_or(failure: bytes | ImageFailure, system: Any, name: str) -> bytes | ImageFailure:
    """The content of a file that has none, as object stores refuse any range of it; else its failure."""
    with suppress(Exception):  # The failure of the fetch is the one to report.
        if system.info(name)["size"] == 0:
            return b""
    return failure


def _is_worth_another_try(content: bytes | ImageFailure) -> bool:
    if isinstance(content, bytes) or content.code is not FailureCode.UNREADABLE:
        return False
    return not isinstance(content.__cause__, FileNotFoundError | PermissionError)


def require_regular_file(image: ListedImage) -> None:
    """Check that an image was listed without a problem, and is not too large.

    Raises:
        ImageFailure: It was, or it is.
    """
    if image.problem == CRASHES_WORKER:
        raise ImageFailure(FailureCode.WORKER_DIED, "decoding crashes the worker process")
    if image.problem is not None:
        code, colon, words = image.problem.partition(": ")
        if colon and code in _CODES:
            raise ImageFailure(FailureCode(code), words)
        # A trailing slash marks a folder that cannot be listed; its row stands for all images in it.
        code = FailureCode.UNREADABLE if image.path.endswith("/") else FailureCode.NOT_A_FILE
        raise ImageFailure(code, image.problem)
    if image.size > _MOST_BYTES:
        raise ImageFailure(FailureCode.TOO_LARGE, f"{image.size} bytes, over the limit of {_MOST_BYTES}")
