"""Atomic writing of files and folders, and verification of what was written.

A file is written under a temporary name, flushed and renamed. A folder is filled under a temporary name
beside its destination, its `manifest.json` last, and renamed. A folder without a manifest is not an artifact.
"""

import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from pixelmill.pipeline.artifacts.formats import format_of
from pixelmill.pipeline.artifacts.manifests import (
    MANIFEST,
    SIGNATURE,
    describe_file,
    describe_files,
    files_to_publish,
    read_manifest,
    read_verified,
    require_only_listed,
    verify_files,
)
from pixelmill.pipeline.artifacts.provenance import installed_packages, now, provenance
from pixelmill.pipeline.artifacts.reading import read_json
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.storage import (
    Location,
    flush_to_disk,
    open_regular,
    opened_for_reading,
    read_content,
    remove_file,
    remove_folder,
    remove_leftovers,
    replacing,
    scratch_folder,
    sha256_of,
    temporary_folder,
    temporary_sibling,
)

__all__ = [
    "MANIFEST",
    "SIGNATURE",
    "add_files",
    "canonical_json",
    "describe_file",
    "describe_files",
    "files_to_publish",
    "flush_to_disk",
    "installed_packages",
    "new_run_id",
    "now",
    "open_regular",
    "opened_for_reading",
    "provenance",
    "publishing",
    "read_array",
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


def write_text(path: Location, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Location, value: object) -> None:
    """Write an indented JSON file atomically."""
    # In ASCII, because file names may not be valid text.
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_array(path: Location, array: "np.ndarray[Any, Any]") -> None:
    """Write an array as a `.npy` file atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    # When NumPy writes to a file itself, it does not report a full disk.
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_array(path: Location) -> Any:
    """Read a `.npy` file; a local one stays on disk and is read where it is used."""
    with opened_for_reading(path) as file:
        return np.load(file, mmap_mode="r" if isinstance(file, str) else None, allow_pickle=False)


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
        number = format_of(facts.get("kind"))
        write_json(staging / MANIFEST, {**number, **facts, **made, "files": describe_files(staging)})
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


def add_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Add text files to a finished artifact that no other process reads yet, or replace files in it.

    The manifest is removed first and written last, so that a killed process leaves no artifact behind whose
    files do not match. A signature is removed, because it would be wrong.

    Args:
        folder: The artifact, on this machine.
        texts: The content of each file, by its path relative to the folder.
    """
    manifest = read_manifest(folder)
    remove_file(folder / MANIFEST)
    remove_file(folder / SIGNATURE)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, text)
        manifest["files"][name] = describe_file(folder / name)
    files = dict(sorted(manifest["files"].items()))
    write_json(folder / MANIFEST, {**manifest, "files": files})
