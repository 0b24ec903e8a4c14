"""Folders on this machine, or behind an fsspec address such as `s3://bucket/folder`."""

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pixelmill.pipeline.errors import RequestError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# The packages that file systems are built on; their errors are no OSErrors.
_CLIENTS = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "paramiko", "requests")


def parse_location(text: str | Path) -> Path:
    """A path; for an address an `upath.UPath`, which has the methods of `pathlib.Path`.

    Raises:
        RequestError: An address of a kind that no installed package can reach.
    """
    if "://" not in str(text):
        return Path(text)
    from upath import UPath

    kind = str(text).partition("://")[0]
    try:
        # What another machine writes meanwhile must be seen: no cached listings.
        path = UPath(str(text), use_listings_cache=False, skip_instance_cache=True, **_options(kind))
        _ = path.fs
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise RequestError(
            f"address {text} ({error})",
            "a folder of this machine, or an address that fsspec can reach",
            "Install what reaches it: for s3:// that is pip install 'pixelmill[s3]'.",
        ) from error
    return cast(Path, path)


def is_remote(path: Path) -> bool:
    """Whether a path is an address, not a place in this machine's file system."""
    return not isinstance(path, Path)


def file_system(path: Path) -> "tuple[AbstractFileSystem, str]":
    """What reaches a remote path, and the path as that names it."""
    from upath import UPath

    remote = cast(UPath, path)
    return remote.fs, remote.path


def absolute(path: Path) -> str:
    """A path that means the same to every process."""
    return str(path) if is_remote(path) else str(path.resolve())


def cache_folder() -> Path:
    """Where this user's machine keeps what can be fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixelmill"


def workspace(store: Path) -> Path:
    """The folder of this machine for what work on a store needs on disk: a local store itself, and for
    a remote one a folder of the cache, one an address.
    """
    if not is_remote(store):
        return store
    address = str(store).rstrip("/")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", address)[:80]
    return cache_folder() / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


def children(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where a remote one is not there, since only its files make it."""
    if not is_remote(folder):
        return list(folder.iterdir())
    system, name = file_system(folder)
    try:
        found = system.ls(name.rstrip("/"), detail=False)
    except FileNotFoundError:
        return []
    names = (entry.rstrip("/").rpartition("/")[2] for entry in found if entry.strip("/") != name.strip("/"))
    return [folder / name for name in names]


def content_of(path: Path) -> bytes:
    """The bytes of a file, all of one moment: an opened remote file fails if it is replaced meanwhile."""
    if not is_remote(path):
        return path.read_bytes()
    system, name = file_system(path)
    content: bytes = system.cat_file(name)
    return content


def require_reachable(path: Path) -> None:
    """See that what a remote path lies in, a bucket, is there and may be used.

    Raises:
        RequestError: It does not answer, it refuses, or there is none of the name.
    """
    if not is_remote(path):
        return
    system, _ = file_system(path)
    try:
        system.info(path.drive)
    except Exception as error:
        if not isinstance(error, OSError) and not is_remote_trouble(error):
            raise
        raise RequestError(
            f"{path} cannot be reached ({str(error) or type(error).__name__})",
            "an address that answers and that this user may use",
            "Check the name, the credentials and the endpoint: for s3:// the variables AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL.",
        ) from error


def is_remote_trouble(error: BaseException) -> bool:
    """Whether an error is that of a package that reaches remote files, and not a mistake in the program."""
    return type(error).__module__.partition(".")[0] in _CLIENTS


def _options(kind: str) -> dict[str, Any]:
    """What a file system is made with, by the kind of its address."""
    if kind not in ("s3", "s3a"):
        return {}
    config: dict[str, Any] = {"max_pool_connections": 64}
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        # A run makes millions of requests: at one in ten failing, five tries are not enough.
        config["retries"] = {"mode": "standard", "total_max_attempts": 8}
    return {"config_kwargs": config}
