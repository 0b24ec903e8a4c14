"""Writing so that a reader sees all of a thing or nothing of it, and checking what was written.

A file is written to a temporary name, flushed and renamed. A folder is filled under a temporary name
beside its destination, gets its `manifest.json` last, and is renamed: no manifest, no artifact.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np

from pipeline.errors import RequestError, WorkError
from pipeline.locations import content_of, file_system, is_remote

MANIFEST = "manifest.json"
_RECORDED_PACKAGES = (
    "pixelmill",
    "jax",
    "keras",
    "numpy",
    "onnx",
    "onnxruntime",
    "opencv-python-headless",
    "pillow",
    "prefect",
    "simplejpeg",
    "tensorflow-cpu",
    "tensorflow",
    "tf2onnx",
    "torch",
)


def now() -> str:
    """The time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_run_id(name: str) -> str:
    """A name for a run that sorts by time: `20260131T235959Z-NAME-1a2b3c`."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}-{uuid4().hex[:6]}"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: object) -> str:
    """JSON that is the same text for the same value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def flush_to_disk(path: Path) -> None:
    """Have the system write a file's or a folder's contents to the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_sibling(path: Path) -> Path:
    """A hidden name beside `path`, on the same file system, that no other process uses.

    It says whose it is: nothing that carries no such mark is ever taken for a leftover of ours.
    """
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}.pixelmill-tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Hand out a temporary name; when the block ends well, it takes the place of `path`.

    When the block raises, the temporary file goes and `path` stays as it was. For a remote `path` the
    temporary file is a local one; a remote object appears whole when it is put there, or not at all.
    """
    if is_remote(path):
        with TemporaryDirectory() as folder:
            local = Path(folder) / path.name
            yield local
            system, name = file_system(path)
            system.put_file(str(local), name)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
        flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def opened_for_reading(path: Path) -> "Iterator[str | BinaryIO]":
    """What Arrow reads a file from: its name, or a remote file's bytes, fetched once."""
    if is_remote(path):
        yield io.BytesIO(content_of(path))
    else:
        yield str(path)


def move(source: Path, target: Path) -> None:
    """Put a file of the same file system in the place of another; the target is never half a file."""
    if is_remote(source):
        system, name = file_system(source)
        # One file by its name: `mv` and `rm` take a name for a pattern.
        system.cp_file(name, file_system(target)[1])
        system.rm_file(name)
    else:
        source.replace(target)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there."""
    if is_remote(path):
        system, name = file_system(path)
        with suppress(FileNotFoundError):
            system.rm_file(name)
    else:
        path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder and all it holds, if it is there."""
    if is_remote(folder):
        system, name = file_system(folder)
        found = system.find(name, withdirs=True, detail=True)
        for place in [*sorted(found, reverse=True), name]:
            if place in found and found[place]["type"] == "file":
                system.rm_file(place)
            elif system.isdir(place):
                system.rmdir(place)  # In an object store it went with its last file.
    elif folder.exists():
        shutil.rmtree(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write a JSON file for people to read, whole or not at all."""
    # In ASCII, because a path may hold a name that is not text.
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_array(path: Path, array: "np.ndarray[Any, Any]") -> None:
    """Write an array as `.npy`, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    # NumPy's own writing to a file does not say that a disk is full.
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RequestError: The file is missing or is not JSON.
    """
    try:
        return json.loads(content_of(path))
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{path} cannot be read ({error})",
            "a JSON file that pixelmill wrote",
            "Check the path, or make the artifact again.",
        ) from error


def describe_file(path: Path) -> dict[str, str | int]:
    """A file's SHA-256, in hexadecimal, and its size in bytes."""
    return {"sha256": sha256_of(path), "size": path.stat().st_size}


def describe_files(folder: Path) -> dict[str, dict[str, str | int]]:
    """What a manifest says of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): describe_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


@contextmanager
def publishing(destination: Path, facts: Mapping[str, object]) -> Iterator[Path]:
    """Hand out an empty folder to fill; when the block ends well it becomes `destination`.

    `facts` may still be filled in by the block; where they tell of a provenance, it stays. The manifest is
    written last. When the block raises, what it wrote is removed. An empty folder or one without a manifest
    at `destination` is replaced.

    Raises:
        RequestError: `destination` is a finished artifact already.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = temporary_sibling(destination)
    staging.mkdir()
    try:
        yield staging
        for path in staging.rglob("*"):
            flush_to_disk(path)
        # What is passed on from another artifact keeps the time and the packages it was made with.
        made = {name: value for name, value in provenance().items() if name not in facts}
        write_json(staging / MANIFEST, {**facts, **made, "files": describe_files(staging)})
        if (destination / MANIFEST).exists():
            raise RequestError(
                f"{destination} is a finished artifact",
                "a name that is still free",
                "Choose another name, or remove the folder yourself.",
            )
        if destination.exists():
            shutil.rmtree(destination)
        staging.rename(destination)
        flush_to_disk(destination.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def provenance() -> dict[str, object]:
    """When this was made, by which versions of which packages, from which commit of the caller's folder."""
    return {
        "created_at": now(),
        "packages": installed_packages(),
        "git_commit": _git_commit(),
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact.

    Raises:
        RequestError: The folder has no manifest, so it is no artifact.
    """
    if not (folder / MANIFEST).is_file():
        raise RequestError(
            f"{folder} has no {MANIFEST}",
            "the folder of a finished artifact",
            "Check the path; an interrupted run leaves no manifest, so run it again.",
        )
    manifest = read_json(folder / MANIFEST)
    if not (isinstance(manifest, dict) and isinstance(manifest.get("files"), dict)):
        raise RequestError(
            f"{folder / MANIFEST} lists no files",
            "a manifest that pixelmill wrote",
            "Check the path; this folder is another program's.",
        )
    return manifest


def verify_files(folder: Path, only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Compare files with the manifest beside them and return the manifest.

    Args:
        folder: The artifact.
        only: Relative paths to check; all that the manifest lists when None.

    Raises:
        WorkError: A file is missing or its bytes have changed.
    """
    manifest = read_manifest(folder)
    files: dict[str, dict[str, str | int]] = manifest["files"]
    for name in files if only is None else only:
        path = folder / name
        found = sha256_of(path) if path.is_file() else "no file"
        wanted = files[name]["sha256"] if name in files else "none listed"
        if found != wanted:
            raise WorkError(
                f"{path} has SHA-256 {found}",
                f"{wanted}, as {MANIFEST} says",
                "The artifact was damaged or changed: make it again or restore it from a copy.",
            )
    return manifest


@cache
def installed_packages() -> dict[str, str]:
    """The versions of the packages that a result may depend on."""
    found = {}
    for package in _RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def _git_commit() -> str | None:
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
