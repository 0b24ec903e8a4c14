"""The registry in an object store, which has neither locks nor folders nor renaming.

A version is set aside by writing an object that must not be there yet, which one process can. A bundle's
manifest is written last. An alias moves by a write that the store refuses if the object has changed since
it was read; S3 does so. Of a store that knows no such write the caller has to see that one process at a
time moves aliases.
"""

import hashlib
import shutil
from logging import getLogger
from pathlib import Path
from typing import Any
from uuid import uuid4

from pixelmill.pipeline.artifacts import (
    MANIFEST,
    flush_to_disk,
    read_manifest,
    remove_file,
    remove_leftovers,
    temporary_folder,
    verify_files,
)
from pixelmill.pipeline.errors import PixelmillError, RequestError, WorkError
from pixelmill.pipeline.locations import cache_folder, content_of, file_system
from pixelmill.pipeline.registry.storage import Change, next_version

_log = getLogger(__name__)
_RESERVATION = ".reserved"
_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


class RemoteStorage:
    """Objects behind an fsspec address."""

    def reserve(self, models: Path) -> int:
        """See `Storage`."""
        while True:
            version = next_version(models)
            # Of its own, so that a write whose answer was lost is known again.
            if _write(models / str(version) / _RESERVATION, uuid4().hex.encode(), tag=None):
                return version

    def release(self, folder: Path) -> None:
        """See `Storage`."""
        if not (folder / MANIFEST).exists():
            remove_file(folder / _RESERVATION)

    def publish(self, bundle: Path, folder: Path) -> None:
        """See `Storage`."""
        taken = RequestError(f"{folder} holds a bundle already", "a version of its own", "Retrain once more.")
        if (folder / MANIFEST).exists():
            raise taken
        for name in read_manifest(bundle)["files"]:
            system, target = file_system(folder / name)
            system.put_file(str(bundle / name), target)
        if not _write(folder / MANIFEST, (bundle / MANIFEST).read_bytes(), tag=None):
            raise taken

    def change(self, path: Path, change: Change) -> None:
        """See `Storage`."""
        while True:
            content, tag = _read(path)
            changed = change(content)
            if changed is None or _write(path, changed.encode(), tag):
                return

    def fetch(self, folder: Path) -> Path:
        """See `Storage`. What was fetched once is kept in the cache, by the hash of its manifest."""
        manifest = read_manifest(folder)
        content = content_of(folder / MANIFEST)
        target = cache_folder() / "bundles" / hashlib.sha256(content).hexdigest()
        if _is_whole(target):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent)
        with temporary_folder(target) as staging:
            for name in manifest["files"]:
                _fetch_file(folder, name, staging)
            (staging / MANIFEST).write_bytes(content)
            _verify(folder, staging)
            for path in staging.rglob("*"):
                flush_to_disk(path)
            if not _is_whole(target):
                shutil.rmtree(target, ignore_errors=True)
            try:
                staging.rename(target)
            except OSError:
                if not _is_whole(target):
                    raise  # And else another process was first.
        _log.info("%s is in %s now", folder, target)
        return target


def _fetch_file(folder: Path, name: str, staging: Path) -> None:
    path = staging / name
    path.parent.mkdir(parents=True, exist_ok=True)
    system, source = file_system(folder / name)
    try:
        system.get_file(source, str(path))
    except FileNotFoundError:
        path.unlink(missing_ok=True)


def _is_whole(bundle: Path) -> bool:
    try:
        verify_files(bundle)
    except PixelmillError:
        return False
    return True


def _verify(folder: Path, staging: Path) -> None:
    try:
        verify_files(staging)
    except WorkError as error:
        raise WorkError(
            error.received.replace(str(staging), str(folder)), error.expected, error.remedy
        ) from error


def _read(path: Path) -> tuple[bytes | None, str | None]:
    """What an object holds, and the tag of what it held at most that late; None where there is none."""
    system, name = file_system(path)
    try:
        facts = system.info(name)
        # Changed in between, its tag is another one, and the write is refused.
        return content_of(path), facts.get("ETag") or ""
    except FileNotFoundError:
        return None, None


def _write(path: Path, content: bytes, tag: str | None) -> bool:
    """Write an object, unless it has changed: `tag` is what it had, None if there was none of the name."""
    system, name = file_system(path)
    options: dict[str, Any] = {"mode": "create"} if tag is None else {}
    if tag and "s3" in system.protocol:
        options = {"IfMatch": tag}
    try:
        system.pipe_file(name, content, **options)
    except OSError as error:
        if not (_is_conflict(error) or (tag and isinstance(error, FileNotFoundError))):
            raise
        # A try whose answer was lost may have done it.
        return _read(path)[0] == content
    return True


def _is_conflict(error: OSError) -> bool:
    code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
    return isinstance(error, FileExistsError) or code in _CONFLICTS
