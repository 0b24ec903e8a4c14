"""The registry in an object store, which has no locks, folders or renaming.

A version is reserved by creating an object, which fails if another process has created it. A bundle's
manifest is written last. An alias is moved by a conditional write, which the store rejects if the object has
changed since it was read, as S3 does. For stores without conditional writes, the caller must ensure that
only one process at a time moves aliases.
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
            # The content is unique, so that a write whose response was lost can be recognized.
            if _write(models / str(version) / _RESERVATION, uuid4().hex.encode(), tag=None):
                return version

    def release(self, folder: Path) -> None:
        """See `Storage`."""
        if not (folder / MANIFEST).exists():
            remove_file(folder / _RESERVATION)

    def publish(self, bundle: Path, folder: Path) -> None:
        """See `Storage`."""
        taken = RequestError(f"{folder} already contains a bundle", "an unused version", "Retrain again.")
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
        """See `Storage`. Fetched bundles are cached by the hash of their manifest."""
        manifest = read_manifest(folder)
        content = content_of(folder / MANIFEST)
        target = cache_folder() / "bundles" / hashlib.sha256(content).hexdigest()
        if _is_intact(target):
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
            if not _is_intact(target):
                shutil.rmtree(target, ignore_errors=True)
            try:
                staging.rename(target)
            except OSError:
                if not _is_intact(target):
                    raise  # Otherwise, another process fetched it first.
        _log.info("%s was fetched to %s", folder, target)
        return target


def _fetch_file(folder: Path, name: str, staging: Path) -> None:
    path = staging / name
    path.parent.mkdir(parents=True, exist_ok=True)
    system, source = file_system(folder / name)
    try:
        system.get_file(source, str(path))
    except FileNotFoundError:
        path.unlink(missing_ok=True)


def _is_intact(bundle: Path) -> bool:
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
    """An object's content and ETag, the latter read first; None if there is no such object."""
    system, name = file_system(path)
    try:
        facts = system.info(name)
        # If the object changes in between, its tag changes as well, and the write is rejected.
        return content_of(path), facts.get("ETag") or ""
    except FileNotFoundError:
        return None, None


def _write(path: Path, content: bytes, tag: str | None) -> bool:
    """Write an object unless it has changed since its `tag` was read; None if there was no such object."""
    system, name = file_system(path)
    options: dict[str, Any] = {"mode": "create"} if tag is None else {}
    if tag and "s3" in system.protocol:
        options = {"IfMatch": tag}
    try:
        system.pipe_file(name, content, **options)
    except OSError as error:
        if not (_is_conflict(error) or (tag and isinstance(error, FileNotFoundError))):
            raise
        # An earlier attempt whose response was lost may have succeeded.
        return _read(path)[0] == content
    return True


def _is_conflict(error: OSError) -> bool:
    code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
    return isinstance(error, FileExistsError) or code in _CONFLICTS
