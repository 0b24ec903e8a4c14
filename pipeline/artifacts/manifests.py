"""The manifest of an artifact, and verification of the files that it lists."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pixelmill.pipeline.artifacts.formats import require_known_format
from pixelmill.pipeline.artifacts.reading import read_json
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.storage import Location, OpenFile, opened, resolves_within, sha256_of

MANIFEST = "manifest.json"
SIGNATURE = "model.sig"
"""The signature of an artifact, which covers its manifest, so that the manifest cannot list it."""
_LISTED = 3
# What a local path is instead of a readable file: a pipe or a folder, a socket, forbidden, or a cyclic link.
_NO_FILE = (errno.EINVAL, errno.ENXIO, errno.EACCES, errno.EPERM, errno.ELOOP)


def _require_below(name: str) -> str:
    if name.startswith("/") or "\0" in name or ".." in PurePosixPath(name).parts:
        raise ValueError("a path that leads out of the folder")
    if name in ("", ".") or str(PurePosixPath(name)) != name:
        raise ValueError("not a plain relative path")
    name.encode()  # Raises ValueError for invalid text, such as half a surrogate pair.
    return name


class FileFacts(BaseModel):
    """The entry of a file in a manifest: its SHA-256 in hexadecimal and its size in bytes."""

    model_config = ConfigDict(frozen=True, strict=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class _Listing(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    files: dict[Annotated[str, AfterValidator(_require_below)], FileFacts]


def describe_file(path: Location) -> dict[str, str | int]:
    """The SHA-256 of a file in hexadecimal, and its size in bytes."""
    return {"sha256": sha256_of(path), "size": path.stat().st_size}


def describe_files(folder: Path) -> dict[str, dict[str, str | int]]:
    """The manifest entries of all files below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): describe_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in (folder / MANIFEST, folder / SIGNATURE)
    }


def files_to_publish(folder: Path) -> list[str]:
    """The relative paths of the files of an artifact; the manifest, which makes it complete, comes last.

    Raises:
        RequestError: The folder is not an artifact.
    """
    signature = [SIGNATURE] if (folder / SIGNATURE).is_file() else []
    return [*read_manifest(folder)["files"], *signature, MANIFEST]


def read_manifest(folder: Location) -> dict[str, Any]:
    """Read the manifest of an artifact and validate its list of files.

    Raises:
        RequestError: The folder has no manifest, so it is not an artifact; or a malformed one, or one of a
            newer version of pixelmill.
    """
    if not (folder / MANIFEST).exists():
        raise RequestError(
            f"{folder} has no {MANIFEST}",
            "the folder of a finished artifact",
            "Check the path; if the run was interrupted, run the same command again.",
        )
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    if isinstance(manifest, dict):
        require_known_format(folder, manifest)
    try:
        _Listing.model_validate(manifest)
    except ValidationError as error:
        raise malformed(folder, error) from error
    return manifest


def malformed(folder: Location, error: ValidationError) -> RequestError:
    """The error for a malformed manifest."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = " ".join(str(part) for part in first["loc"] if part != "[key]") or "the whole"
    return RequestError(
        f"{folder / MANIFEST} is malformed: {place}: {first['msg'].removeprefix('Value error, ')}",
        "a manifest written by pixelmill, which lists files below its folder with SHA-256 and size",
        "Get the folder from its source again: it was damaged, or written by another program.",
    )


def verify_files(folder: Location, only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Verify files of an artifact against its manifest and return the manifest.

    Args:
        folder: The artifact.
        only: Relative paths of the files to verify; all files in the manifest if None.

    Raises:
        RequestError: The folder is not an artifact.
        WorkError: A file is missing, its bytes have changed, or it is not a regular file in the folder.
    """
    manifest = read_manifest(folder)
    for name in manifest["files"] if only is None else only:
        with _opened(folder, name, manifest) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        _compare(folder / name, digest, manifest["files"][name]["sha256"])
    return manifest


def read_verified(folder: Location, name: str, manifest: dict[str, Any] | None = None) -> bytes:
    """Read one file of an artifact and verify its bytes against the manifest.

    Args:
        folder: The artifact.
        name: The relative path of the file.
        manifest: The result of `read_manifest`; read here if None.

    Raises:
        RequestError: The folder is not an artifact.
        WorkError: The file is missing, its bytes have changed, or it is not a regular file in the folder.
    """
    manifest = read_manifest(folder) if manifest is None else manifest
    with _opened(folder, name, manifest) as file:
        content = file.read(manifest["files"][name]["size"] + 1)
    _compare(folder / name, hashlib.sha256(content).hexdigest(), manifest["files"][name]["sha256"])
    return content


def require_only_listed(folder: Path, manifest: dict[str, Any]) -> None:
    """Check that a local folder holds no files that its manifest does not list.

    Raises:
        WorkError: It does; the error names the first of them.
    """
    listed = {MANIFEST, SIGNATURE, *manifest["files"]}
    unlisted = sorted(name for name in _names_below(folder) if name not in listed)
    if unlisted:
        more = f" and {len(unlisted) - _LISTED:,} more" if len(unlisted) > _LISTED else ""
        raise WorkError(
            f"{folder} holds {', '.join(unlisted[:_LISTED])}{more}, which {MANIFEST} does not list",
            "only files that the manifest lists",
            "Remove those files, or get the folder from its source again.",
        )


@contextmanager
def _opened(folder: Location, name: str, manifest: dict[str, Any]) -> Iterator[OpenFile]:
    """A listed file, which must be a regular file inside the folder with the listed size."""
    path = folder / name
    if name not in manifest["files"]:
        raise _damaged(f"{path} is not listed in {MANIFEST}", "a file that the manifest lists")
    if not resolves_within(path, folder):
        raise _damaged(f"{path} is a link that leads out of {folder}", "files inside the folder")
    with ExitStack() as files:
        try:
            file = files.enter_context(opened(path))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _damaged(f"{path} is missing", f"the file that {MANIFEST} lists") from error
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise  # The disk or the network failed, and the file may be intact.
            what = f"cannot be read: {error.strerror}"
            raise _damaged(f"{path} {what}", f"the file that {MANIFEST} lists") from error
        # The size is compared first, which avoids reading a huge sparse file.
        size, wanted = file.seek(0, os.SEEK_END), manifest["files"][name]["size"]
        if size != wanted:
            raise _damaged(f"{path} has {size:,} bytes", f"{wanted:,}, as {MANIFEST} says")
        file.seek(0)
        yield file


def _compare(path: Location, found: str, wanted: str) -> None:
    if found != wanted:
        raise _damaged(f"{path} has SHA-256 {found}", f"{wanted}, as {MANIFEST} says")


def _damaged(received: str, expected: str) -> WorkError:
    return WorkError(
        received,
        expected,
        "The artifact was damaged or modified: create it again or restore it from a copy.",
    )


def _names_below(folder: Path) -> Iterator[str]:
    """The relative paths of all files, links and special files below a folder; links are not followed."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in (*files, *links):
            yield (Path(place) / name).relative_to(folder).as_posix()
