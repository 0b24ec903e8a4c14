"""Remote storage, such as an object store, which has no locks, folders or renaming.

An upload creates an object whole. A change is a conditional write, which the store rejects if the object has
changed since it was read, as S3 does. For stores without conditional writes, the caller must ensure that only
one process at a time changes a file.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelmill.pipeline.storage.interface import Change, OpenFile
from pixelmill.pipeline.storage.location import Location, file_system, is_remote
from pixelmill.pipeline.storage.temporaries import scratch_folder

if TYPE_CHECKING:
    from upath import UPath
    from upath.types import StatResultType

_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


@dataclass(frozen=True)
class RemoteStorage:
    """An address; see `Storage`."""

    path: "UPath"

    def make_folder(self) -> None:
        """See `Storage`. A folder appears with its first file."""

    def children(self) -> list[Location]:
        """See `Storage`. A missing folder is an empty one."""
        system, name = file_system(self.path)
        try:
            found = system.ls(name.rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        names = (
            entry.rstrip("/").rpartition("/")[2] for entry in found if entry.strip("/") != name.strip("/")
        )
        return [self.path / name for name in names]

    def file_sizes(self) -> dict[str, int]:
        """See `Storage`."""
        system, name = file_system(self.path)
        try:
            entries = system.ls(name.rstrip("/"), detail=True)
        except FileNotFoundError:
            return {}
        return {
            entry["name"].rpartition("/")[2]: entry["size"] or 0
            for entry in entries
            if entry["type"] == "file"
        }

    def stat(self) -> "StatResultType":
        """See `Storage`."""
        return self.path.stat()

    def stamp(self) -> object:
        """See `Storage`."""
        system, name = file_system(self.path)
        try:
            return sorted(system.info(name).items())
        except FileNotFoundError:
            return None

    def read(self, largest: int | None) -> bytes:
        """See `Storage`. The bytes are fetched at once, and `largest` is not checked."""
        system, name = file_system(self.path)
        content: bytes = system.cat_file(name)
        return content

    def opened(self) -> OpenFile:
        """See `Storage`. An open remote file would fail if it is replaced meanwhile."""
        return io.BytesIO(self.read(None))

    def source(self) -> OpenFile:
        """See `Storage`."""
        return self.opened()

    def sha256(self) -> str:
        """See `Storage`."""
        system, name = file_system(self.path)
        with system.open(name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextmanager
    def replacing(self) -> Iterator[Path]:
        """See `Storage`."""
        with scratch_folder("upload") as folder:
            local = folder / self.path.name
            yield local
            system, name = file_system(self.path)
            system.put_file(str(local), name)

    def create(self, content: bytes) -> bool:
        """See `Storage`."""
        return self._write(content, tag=None)

    def change(self, change: Change, largest: int | None) -> None:
        """See `Storage`. The function is called again if another process changed the file first."""
        while True:
            content, tag = self._read_tagged()
            changed = change(content)
            if changed is None or self._write(changed, tag):
                return

    def publish(self, source: Path, names: Sequence[str]) -> bool:
        """See `Storage`. The last of the files is created last, unless another process has created it."""
        *others, last = names
        if (self.path / last).exists():
            return False
        for name in others:
            system, target = file_system(self.path / name)
            system.put_file(str(source / name), target)
        return RemoteStorage(self.path / last).create((source / last).read_bytes())

    def publish_copy(self, source: Path, names: Sequence[str]) -> bool:
        """See `Storage`. Publishing leaves the local folder where it is."""
        return self.publish(source, names)

    def download(self, target: Path) -> None:
        """See `Storage`."""
        system, name = file_system(self.path)
        try:
            system.get_file(name, str(target))
        except FileNotFoundError:
            target.unlink(missing_ok=True)

    def link(self, target: Location) -> None:
        """See `Storage`."""
        if not is_remote(target):
            raise TypeError(f"{target} is not in the same storage")
        system, name = file_system(self.path)
        system.cp_file(name, target.path)  # Not `cp`, which treats names as patterns.

    def remove_file(self) -> None:
        """See `Storage`."""
        system, name = file_system(self.path)
        with suppress(FileNotFoundError):
            system.rm_file(name)  # Not `rm`, likewise.

    def remove_folder(self) -> None:
        """See `Storage`."""
        system, name = file_system(self.path)
        found = system.find(name, withdirs=True, detail=True)
        for place in [*sorted(found, reverse=True), name]:
            if place in found and found[place]["type"] == "file":
                system.rm_file(place)
            elif system.isdir(place):
                system.rmdir(place)  # In an object store, a folder disappears with its last file.

    def require_writable(self) -> None:
        """See `Storage`. Only a write to the object store itself would tell."""

    def resolves_within(self, folder: Location) -> bool:
        """See `Storage`. An object store has no links."""
        return True

    @contextmanager
    def locked_folder(self, lock: str) -> Iterator[None]:
        """See `Storage`. An object store has no locks."""
        yield

    @contextmanager
    def local_folder(self) -> Iterator[Path]:
        """See `Storage`."""
        with scratch_folder(self.path.name) as folder:
            yield folder

    def _read_tagged(self) -> tuple[bytes | None, str | None]:
        """The object's content and ETag, the latter read first; None if there is no such object."""
        system, name = file_system(self.path)
        try:
            facts = system.info(name)
            # If the object changes in between, its tag changes as well, and the write is rejected.
            return self.read(None), facts.get("ETag") or ""
        except FileNotFoundError:
            return None, None

    def _write(self, content: bytes, tag: str | None) -> bool:
        """Write the object unless it changed since its `tag` was read; None if there was no such object."""
        system, name = file_system(self.path)
        options: dict[str, Any] = {"mode": "create"} if tag is None else {}
        if tag and "s3" in system.protocol:
            options = {"IfMatch": tag}
        try:
            system.pipe_file(name, content, **options)
        except OSError as error:
            if not (_is_conflict(error) or (tag and isinstance(error, FileNotFoundError))):
                raise
            # An earlier attempt whose response was lost may have succeeded.
            return self._read_tagged()[0] == content
        return True


def _is_conflict(error: OSError) -> bool:
    code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
    return isinstance(error, FileExistsError) or code in _CONFLICTS
