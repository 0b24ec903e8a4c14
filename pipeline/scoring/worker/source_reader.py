"""Reading of the images of a source: each kind has its reader."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.images import FailureCode, ImageFailure
from pixelmill.pipeline.scoring.image_archives import find_members
from pixelmill.pipeline.scoring.listing import UNKNOWN_SIZE, ListedImage, unescape
from pixelmill.pipeline.scoring.sources import ImageSource, SourceKind
from pixelmill.pipeline.scoring.worker.archive_reader import ArchiveReader
from pixelmill.pipeline.scoring.worker.file_reader import Reader, read_remote, reader_of
from pixelmill.pipeline.storage import file_system, is_remote, is_remote_error, parse_location, read_content


def reader_of_source(source: ImageSource) -> Reader:
    """The reader for the images of a source."""
    return _READERS[source.kind](source)


def read_images(source: ImageSource, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The current bytes of images of a table, by path; those that cannot be read are left out.

    Args:
        source: The images of the table.
        paths: The `image_path` of each, without repetition. Members of an archive come in its order.
    """
    if source.kind == "archive":
        reader = ArchiveReader(source)
        for member in find_members(source, paths):
            (content,) = reader([member])
            if isinstance(content, bytes):
                yield member.path, content
        return
    for path in paths:
        try:
            yield path, read_image(source, path)
        except Exception as error:
            if not isinstance(error, OSError | ValueError) and not is_remote_error(error):
                raise


def read_image(source: ImageSource, path: str) -> bytes:
    """The current bytes of one image of a table; see `read_images` for several.

    Args:
        source: The images of the table.
        path: Its `image_path`.

    Raises:
        OSError: It cannot be read.
    """
    if source.kind == "archive":
        for _, content in read_images(source, [path]):
            return content
        raise OSError(f"no readable member {path}")
    try:
        return read_content(source.place_of(path))
    except PixelmillError as error:  # An address that no installed package supports.
        raise OSError(error.received) from error


@dataclass
class _ListReader:
    """Reads the images of a list: paths below its root, other paths on this machine, and addresses."""

    source: ImageSource
    _systems: dict[str, Any] = field(default_factory=dict)

    def __call__(self, images: Sequence[ListedImage], /) -> list[bytes | ImageFailure]:
        contents: list[bytes | ImageFailure] = [ImageFailure(FailureCode.UNREADABLE, "not read")] * len(
            images
        )
        here: list[int] = []
        remote: dict[str, list[int]] = defaultdict(list)
        for at, image in enumerate(images):
            if image.size != UNKNOWN_SIZE:
                here.append(at)
            else:
                remote[self._server_of(unescape(image.path))].append(at)
        if here:
            found = self._read_here([images[at] for at in here])
            for at, content in zip(here, found, strict=True):
                contents[at] = content
        for server, places in remote.items():
            for at, content in zip(places, self._fetch(server, [images[at] for at in places]), strict=True):
                contents[at] = content
        return contents

    @cached_property
    def _read_here(self) -> Reader:
        # Paths of a list whose root is remote are absolute, so any folder will do.
        root = self.source.root
        return reader_of(parse_location("/") if is_remote(root) else root)

    def _server_of(self, path: str) -> str:
        kind, separator, rest = path.partition("://")
        return f"{kind}://{rest.partition('/')[0]}" if separator else ""

    def _fetch(self, server: str, images: Sequence[ListedImage]) -> list[bytes | ImageFailure]:
        try:
            if server not in self._systems:
                self._systems[server] = file_system(parse_location(server) if server else self.source.root)  # type: ignore[arg-type]
        except PixelmillError as error:
            failure = ImageFailure(FailureCode.UNREADABLE, error.received)
            return [failure] * len(images)
        system, root = self._systems[server]
        names = [unescape(image.path) for image in images]
        # Addresses are stripped by the file system itself, which knows their form.
        paths = [
            str(system._strip_protocol(name)) if server else f"{root.rstrip('/')}/{name}" for name in names
        ]
        return read_remote(system, paths, images, f"{server or root}")


_READERS: dict[SourceKind, Callable[[ImageSource], Reader]] = {
    "folder": lambda source: reader_of(source.place),
    "list": _ListReader,
    "archive": ArchiveReader,
}
