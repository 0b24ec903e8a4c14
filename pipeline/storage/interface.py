"""The operations that local and remote storage do in different ways."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pixelmill.pipeline.storage.location import Location

if TYPE_CHECKING:
    from upath.types import StatResultType

Change: TypeAlias = Callable[[bytes | None], bytes | None]
"""From a file's content, None if there is no file, to its new content, None to leave it unchanged."""
OpenFile: TypeAlias = BytesIO | BufferedReader


class Storage(Protocol):
    """One location, with the operations of `pixelmill.pipeline.storage`, which documents them."""

    def make_folder(self) -> None:
        """Create the folder."""

    def children(self) -> list[Location]:
        """The entries of the folder."""

    def file_sizes(self) -> dict[str, int]:
        """The sizes in bytes of the files directly in the folder, by name."""

    def stat(self) -> "StatResultType":
        """The kind, size, time and inode of the file or folder."""

    def stamp(self) -> object:
        """A value that differs once the file was replaced."""

    def read(self, largest: int | None) -> bytes:
        """The bytes of the file."""

    def opened(self) -> OpenFile:
        """The file as it is now, whether or not it is replaced meanwhile."""

    def source(self) -> str | OpenFile:
        """What Arrow reads the file from."""

    def sha256(self) -> str:
        """The SHA-256 of the file in hexadecimal."""

    def replacing(self) -> AbstractContextManager[Path]:
        """A local temporary path that replaces the file at the end of the block."""

    def create(self, content: bytes) -> bool:
        """Create the file if there is none, and return whether this call created it."""

    def change(self, change: Change, largest: int | None) -> None:
        """Replace the file's content with a function's result, without losing other processes' changes."""

    def publish(self, source: Path, names: Sequence[str]) -> bool:
        """Publish a local folder under this name, and return whether the name was free."""

    def publish_copy(self, source: Path, names: Sequence[str]) -> bool:
        """Publish a copy of a local folder under this name, and return whether the name was free."""

    def download(self, target: Path) -> None:
        """Copy the file to a local one, if it exists."""

    def link(self, target: Location) -> None:
        """Give the file a second name in the same storage."""

    def remove_file(self) -> None:
        """Remove the file."""

    def remove_folder(self) -> None:
        """Remove the folder and its contents."""

    def require_writable(self) -> None:
        """Raise an OSError if the folder, or the folder that it would be created in, is not writable."""

    def resolves_within(self, folder: Location) -> bool:
        """Whether the file lies in a folder once links are followed."""

    def locked_folder(self, lock: str) -> AbstractContextManager[None]:
        """Create the folder and lock it, where there are locks."""

    def local_folder(self) -> AbstractContextManager[Path]:
        """An empty folder on this machine: this one, or a temporary one in its place."""
