"""Locations: local paths, and remote ones by fsspec addresses such as `s3://bucket/folder`."""

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import PlainSerializer, PlainValidator

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.extras import install_command

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from typing_extensions import TypeIs
    from upath import UPath

    Location: TypeAlias = Path | UPath
else:
    # Importing `upath` takes 90 ms, which only those who give an address should pay. Pydantic reads and
    # writes a location as text that means the same in every process and on every machine.
    Location: TypeAlias = Annotated[
        Path,
        PlainValidator(lambda value: parse_location(value)),  # noqa: PLW0108  # Defined below.
        PlainSerializer(lambda value: absolute(value)),  # noqa: PLW0108  # Defined below.
    ]

# The client packages of remote file systems, whose errors are not OSErrors.
_CLIENTS = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "paramiko", "requests")


def parse_location(text: str | Location) -> Location:
    """Parse a path as a `pathlib.Path`, or an address as a `upath.UPath`, which has the same methods.

    Raises:
        RequestError: No installed package supports the address.
    """
    if "://" not in str(text):
        return Path(str(text))
    from upath import UPath

    kind = str(text).partition("://")[0]
    try:
        # No cached listings, because other machines may write at the same time.
        path: UPath = UPath(str(text), use_listings_cache=False, skip_instance_cache=True, **_options(kind))
        _ = path.fs
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise RequestError(
            f"address {text} ({error})",
            "a local folder, or an address that fsspec supports",
            f"Install the package for this kind of address; for s3://: {install_command('s3')}",
        ) from error
    return path


def is_remote(location: Location) -> "TypeIs[UPath]":
    """Whether a location is an address rather than a local path."""
    return not isinstance(location, Path)


def local_path(location: Location) -> Path:
    """A location that must be a local path.

    Raises:
        TypeError: It is an address.
    """
    if is_remote(location):
        raise TypeError(f"{location} is not a local path")
    return location


def file_system(address: "UPath") -> "tuple[AbstractFileSystem, str]":
    """The fsspec file system of an address, and the path within it."""
    return address.fs, address.path


def absolute(location: Location) -> str:
    """An absolute path or address that means the same in every process."""
    return str(location) if is_remote(location) else str(location.resolve())


def relative_to_here(location: Location) -> str:
    """A location for display: a path below the current folder without that folder, any other in full."""
    if is_remote(location):
        return str(location)
    resolved, here = location.resolve(), Path.cwd()
    return str(resolved.relative_to(here) if resolved.is_relative_to(here) else resolved)


def has_latency(location: Location) -> bool:
    """Whether each read waits for a network, so that several should be under way at once."""
    return is_remote(location)


LocalPath = Annotated[Path, PlainSerializer(absolute)]
"""A path on this machine that pydantic writes as text which means the same in every process."""


def cache_folder() -> Path:
    """The user's cache folder on this machine."""
    from platformdirs import user_cache_path

    return user_cache_path("pixelmill")


def workspace(store: Location) -> Path:
    """The local folder for working files of a store.

    For a local store, the store itself; for a remote one, a folder of the cache that belongs to its address.
    """
    if not is_remote(store):
        return store
    address = str(store).rstrip("/")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", address)[:80]
    return cache_folder() / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


def require_reachable(location: Location) -> None:
    """Check that the bucket of an address exists and is accessible.

    Raises:
        RequestError: It does not respond, denies access, or does not exist.
    """
    if not is_remote(location):
        return
    system, _ = file_system(location)
    try:
        system.info(location.drive)
    except Exception as error:
        if not isinstance(error, OSError) and not is_remote_error(error):
            raise
        raise RequestError(
            f"{location} cannot be reached ({str(error) or type(error).__name__})",
            "an address that is reachable and accessible to this user",
            "Check the name, the credentials and the endpoint; for s3://, the variables AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL.",
        ) from error


def is_remote_error(error: BaseException) -> bool:
    """Whether an error comes from a client package for remote files, so is not a bug in the program."""
    return type(error).__module__.partition(".")[0] in _CLIENTS


def _options(kind: str) -> dict[str, Any]:
    """The fsspec options for a kind of address."""
    if kind not in ("s3", "s3a"):
        return {}
    config: dict[str, Any] = {"max_pool_connections": 64}
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        # A run makes millions of requests. If one in ten fails, five attempts are not enough.
        config["retries"] = {"mode": "standard", "total_max_attempts": 8}
    return {"config_kwargs": config}
