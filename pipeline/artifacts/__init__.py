"""Atomic writing of files and folders, and verification of what was written.

A file is written under a temporary name, flushed and renamed. A folder is filled under a temporary name
beside its destination, its `manifest.json` last, and renamed. A folder without a manifest is not an artifact.
"""

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np

from pixelmill.pipeline.artifacts.manifests import (
    MANIFEST,
    describe_file,
    describe_files,
    read_manifest,
    read_verified,
    require_only_listed,
    verify_files,
)
from pixelmill.pipeline.artifacts.provenance import installed_packages, now, provenance
from pixelmill.pipeline.artifacts.reading import open_regular, read_content, read_json, sha256_of
from pixelmill.pipeline.artifacts.temporaries import (
    remove_leftovers,
    scratch_folder,
    temporary_file,
    temporary_folder,
    temporary_sibling,
)
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.locations import content_of, file_system, is_remote

__all__ = [
    "MANIFEST",
    "canonical_json",
    "describe_file",
    "describe_files",
    "flush_to_disk",
    "installed_packages",
    "move",
    "new_run_id",
    "now",
    "open_regular",
    "opened_for_reading",
    "provenance",
    "publishing",
    "read_content",
    "read_json",
    "read_manifest",
    "read_verified",
    "remove_file",
    "remove_folder",
    "remove_leftovers",
    "replacing",
    "require_only_listed",
    "scratch_folder",
    "sha256_of",
    "temporary_folder",
    "temporary_sibling",
    "verify_files",
    "write_array",
    "write_json",
    "write_text",
]


def new_run_id(name: str) -> str:
    """A unique ID for a run that sorts by time: `20260131T235959Z-NAME-1a2b3c`."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}-{uuid4().hex[:6]}"


def canonical_json(value: object) -> str:
    """JSON that is always the same text for the same value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def flush_to_disk(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block succeeds.

    If the block raises, the temporary file is removed and `path` is unchanged. For a remote `path`, the
    temporary file is local, and uploading it creates the remote object atomically.
    """
    if is_remote(path):
        with scratch_folder("upload") as folder:
            local = folder / path.name
            yield local
            system, name = file_system(path)
            system.put_file(str(local), name)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(path) as temporary:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
        flush_to_disk(path.parent)


@contextmanager
def opened_for_reading(path: Path) -> "Iterator[str | BinaryIO]":
    """A source for Arrow: the name of a local file, or the bytes of a remote one, fetched once."""
    if is_remote(path):
        yield io.BytesIO(content_of(path))
    else:
        yield str(path)


def move(source: Path, target: Path) -> None:
    """Move a file within a file system, replacing the target atomically."""
    if is_remote(source):
        system, name = file_system(source)
        # Not `mv` and `rm`, which treat names as patterns.
        system.cp_file(name, file_system(target)[1])
        system.rm_file(name)
    else:
        source.replace(target)


def remove_file(path: Path) -> None:
    """Remove a file if it exists."""
    if is_remote(path):
        system, name = file_system(path)
        with suppress(FileNotFoundError):
            system.rm_file(name)
    else:
        path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder and its contents if it exists."""
    if is_remote(folder):
        system, name = file_system(folder)
        found = system.find(name, withdirs=True, detail=True)
        for place in [*sorted(found, reverse=True), name]:
            if place in found and found[place]["type"] == "file":
                system.rm_file(place)
            elif system.isdir(place):
                system.rmdir(place)  # In an object store, a folder disappears with its last file.
    elif folder.exists():
        shutil.rmtree(folder)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write an indented JSON file atomically."""
    # In ASCII, because file names may not be valid text.
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_array(path: Path, array: "np.ndarray[Any, Any]") -> None:
    """Write an array as a `.npy` file atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    # When NumPy writes to a file itself, it does not report a full disk.
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


@contextmanager
def publishing(destination: Path, facts: Mapping[str, object]) -> Iterator[Path]:
    """Yield an empty folder to fill, which becomes `destination` when the block succeeds.

    The block may still add to `facts`; their provenance, if any, takes precedence. The manifest is written
    last. If the block raises, its files are removed. A folder without a manifest at `destination` is
    replaced.

    Raises:
        RequestError: `destination` is already a finished artifact.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(destination.parent, destination.name)
    with temporary_folder(destination) as staging:
        yield staging
        for path in staging.rglob("*"):
            flush_to_disk(path)
        # An artifact derived from another keeps the time and packages of the original.
        made = {name: value for name, value in provenance().items() if name not in facts}
        write_json(staging / MANIFEST, {**facts, **made, "files": describe_files(staging)})
        if (destination / MANIFEST).exists():
            raise RequestError(
                f"{destination} is a finished artifact",
                "a name that is not in use",
                "Choose another name, or remove the folder.",
            )
        if destination.exists():
            shutil.rmtree(destination)
        staging.rename(destination)
        flush_to_disk(destination.parent)
