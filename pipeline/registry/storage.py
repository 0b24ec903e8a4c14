"""Where the registry's files are: what differs between a folder of this machine and a remote one."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from pipeline.artifacts import flush_to_disk, write_text
from pipeline.locations import children

Change = Callable[[bytes | None], str | None]
"""From what a file holds, None where there is none, to what it shall hold, None to leave it."""
_SECONDS_FOR_LOCK = 60


class Storage(Protocol):
    """What must be safe while other processes do the same."""

    def reserve(self, models: Path) -> int:
        """Set the next version number in the folder of a model aside; no other process gets it."""

    def release(self, folder: Path) -> None:
        """Give a version that was set aside back, if nothing was published there."""

    def publish(self, bundle: Path, folder: Path) -> None:
        """Let a bundle on this machine appear under its version, whole or not at all."""

    def change(self, path: Path, change: Change) -> None:
        """Replace a file by what a function makes of it; no other process's change is lost."""

    def fetch(self, folder: Path) -> Path:
        """A published bundle in a folder of this machine."""


class LocalStorage:
    """Folders of this machine: a version is set aside by making its folder, which one process can."""

    def reserve(self, models: Path) -> int:
        """See `Storage`."""
        models.mkdir(parents=True, exist_ok=True)
        while True:
            version = next_version(models)
            try:
                (models / str(version)).mkdir()
            except FileExistsError:
                continue
            return version

    def release(self, folder: Path) -> None:
        """See `Storage`."""
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def publish(self, bundle: Path, folder: Path) -> None:
        """See `Storage`."""
        bundle.rename(folder)
        flush_to_disk(folder.parent)

    def change(self, path: Path, change: Change) -> None:
        """See `Storage`."""
        with FileLock(path.with_name(f".{path.stem}.lock"), timeout=_SECONDS_FOR_LOCK):
            content = change(path.read_bytes() if path.is_file() else None)
            if content is not None:
                write_text(path, content)

    def fetch(self, folder: Path) -> Path:
        """See `Storage`."""
        return folder


def next_version(models: Path) -> int:
    """One more than the highest number in the folder of a model."""
    return max((int(path.name) for path in children(models) if path.name.isdecimal()), default=0) + 1
