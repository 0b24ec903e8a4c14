"""Bundles on their way to a store and back: publishing a local one, and fetching a remote one."""

import hashlib
import shutil
from logging import getLogger
from pathlib import Path

from pixelmill.pipeline.artifacts import MANIFEST, SIGNATURE, files_to_publish, read_manifest, verify_files
from pixelmill.pipeline.errors import PixelmillError, RequestError, WorkError
from pixelmill.pipeline.storage import (
    Location,
    cache_folder,
    download_file,
    flush_to_disk,
    is_remote,
    publish_folder,
    read_content,
    remove_leftovers,
    temporary_folder,
)

_log = getLogger(__name__)


def publish_bundle(bundle: Path, folder: Location) -> None:
    """Publish a local bundle in a store, completely or not at all. A local store takes the folder itself.

    Raises:
        RequestError: A remote folder already contains a bundle.
    """
    if not publish_folder(bundle, folder, files_to_publish(bundle)):
        raise RequestError(f"{folder} already contains a bundle", "an unused version", "Retrain again.")


def fetch_bundle(folder: Location) -> Path:
    """The local folder of a bundle: the bundle itself, or a verified copy of a remote one.

    Fetched bundles are cached by the hash of their manifest and signature.

    Raises:
        RequestError: There is no bundle, or its manifest is malformed.
        WorkError: Its files are damaged.
    """
    if not is_remote(folder):
        return folder
    manifest = read_manifest(folder)
    content = read_content(folder / MANIFEST)
    signature = _read_signature(folder)
    target = cache_folder() / "bundles" / hashlib.sha256(content + signature).hexdigest()
    if _is_intact(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    with temporary_folder(target) as staging:
        for name in manifest["files"]:
            # `_verify` names a missing file.
            download_file(folder / name, staging / name)
        if signature:
            (staging / SIGNATURE).write_bytes(signature)
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


def _read_signature(folder: Location) -> bytes:
    """The signature of a remote bundle; empty if it has none."""
    try:
        return read_content(folder / SIGNATURE)
    except (FileNotFoundError, PermissionError):
        # Some stores forbid what does not exist to a reader who may not list the folder.
        return b""


def _is_intact(bundle: Path) -> bool:
    try:
        verify_files(bundle)
    except PixelmillError:
        return False
    return True


def _verify(folder: Location, staging: Path) -> None:
    try:
        verify_files(staging)
    except WorkError as error:
        raise WorkError(
            error.received.replace(str(staging), str(folder)), error.expected, error.remedy
        ) from error
