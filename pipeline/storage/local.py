"""Local storage: files are replaced by renaming, and changed under a lock."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from filelock import FileLock

from pixelmill.pipeline.storage.deep_paths import stat_file
from pixelmill.pipeline.storage.interface import Change, OpenFile
from pixelmill.pipeline.storage.location import Location, local_path
from pixelmill.pipeline.storage.regular_files import open_regular
from pixelmill.pipeline.storage.temporaries import temporary_file, temporary_folder

_SECONDS_FOR_LOCK = 60


@dataclass(frozen=True)
class LocalStorage:
    """A local path; see `Storage`."""

    path: Path

    def make_folder(self) -> None:
        """See `Storage`."""
        self.path.mkdir(parents=True, exist_ok=True)

    def children(self) -> list[Location]:
        """See `Storage`."""
        return list(self.path.iterdir())

    def file_sizes(self) -> dict[str, int]:
        """See `Storage`."""
        if not self.path.is_dir():
            return {}
        return {path.name: path.stat().st_size for path in self.path.iterdir() if path.is_file()}

    def stat(self) -> os.stat_result:
        """See `Storage`."""
        return stat_file(os.fspath(self.path))

    def stamp(self) -> object:
        """See `Storage`."""
        try:
            facts = self.stat()
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size

    def read(self, largest: int | None) -> bytes:
        """See `Storage`."""
        with open_regular(self.path) as file:
            if largest is None:
                return file.read()
            size = os.fstat(file.fileno()).st_size
            content = file.read(largest + 1) if size <= largest else b""
        if size > largest or len(content) > largest:
            message = f"{max(size, len(content)):,} bytes, more than {largest:,}"
            raise OSError(errno.EFBIG, message, str(self.path))
        return content

    def opened(self) -> OpenFile:
        """See `Storage`. Files are never modified in place."""
        return open_regular(self.path)

    def source(self) -> str:
        """See `Storage`."""
        return str(self.path)

    def sha256(self) -> str:
        """See `Storage`."""
        with open_regular(self.path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextmanager
    def replacing(self) -> Iterator[Path]:
        """See `Storage`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(self.path) as temporary:
            yield temporary
            flush_to_disk(temporary)
            temporary.replace(self.path)
            flush_to_disk(self.path.parent)

    def create(self, content: bytes) -> bool:
        """See `Storage`."""
        with self._locked():
            if self.path.exists():
                return False
            self._write(content)
            return True

    def change(self, change: Change, largest: int | None) -> None:
        """See `Storage`."""
        with self._locked():
            content = change(self.read(largest) if self.path.exists() else None)
            if content is not None:
                self._write(content)

    def publish(self, source: Path, names: Sequence[str]) -> bool:
        """See `Storage`. The folder is renamed, with all that it holds."""
        source.rename(self.path)
        flush_to_disk(self.path.parent)
        return True

    def publish_copy(self, source: Path, names: Sequence[str]) -> bool:
        """See `Storage`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(self.path) as staging:
            for name in names:
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, staging / name)
            for path in staging.rglob("*"):
                flush_to_disk(path)
            return self.publish(staging, names)

    def download(self, target: Path) -> None:
        """See `Storage`."""
        if self.path.is_file():
            shutil.copyfile(self.path, target)

    def link(self, target: Location) -> None:
        """See `Storage`."""
        try:
            os.link(self.path, local_path(target))
        except OSError:  # Not every file system has hard links.
            shutil.copyfile(self.path, local_path(target))
            flush_to_disk(local_path(target))

    def remove_file(self) -> None:
        """See `Storage`."""
        self.path.unlink(missing_ok=True)

    def remove_folder(self) -> None:
        """See `Storage`."""
        if self.path.exists():
            shutil.rmtree(self.path)

    def require_writable(self) -> None:
        """See `Storage`."""
        path = self.path.absolute()
        with TemporaryFile(dir=next(folder for folder in (path, *path.parents) if folder.exists())):
            pass

    def resolves_within(self, folder: Location) -> bool:
        """See `Storage`."""
        # Path.resolve() raises on cyclic links.
        return Path(os.path.realpath(self.path)).is_relative_to(os.path.realpath(local_path(folder)))

    @contextmanager
    def locked_folder(self, lock: str) -> Iterator[None]:
        """See `Storage`. If nothing is written to the folders that this created, they are removed."""
        made = [folder for folder in self.path.parents if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        held = FileLock(self.path / lock, timeout=0)
        held.acquire()
        try:
            yield
        finally:
            if [path.name for path in self.path.iterdir()] == [lock]:
                shutil.rmtree(self.path)
            held.release()
            for folder in made:
                with suppress(OSError):  # A folder that is not empty stays.
                    folder.rmdir()

    @contextmanager
    def local_folder(self) -> Iterator[Path]:
        """See `Storage`."""
        self.remove_folder()
        self.make_folder()
        yield self.path

    def _locked(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_name(f".{self.path.stem}.lock"), timeout=_SECONDS_FOR_LOCK)

    def _write(self, content: bytes) -> None:
        with self.replacing() as temporary:
            temporary.write_bytes(content)


def flush_to_disk(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
