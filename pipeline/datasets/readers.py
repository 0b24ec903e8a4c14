"""Reading an image file by its place: an escaped path on this machine, or an address."""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from pixelmill.pipeline.file_names import escape_path, unescape
from pixelmill.pipeline.images import FailureCode, ImageFailure
from pixelmill.pipeline.storage import Location, file_system, is_remote, is_remote_error, parse_location

if TYPE_CHECKING:
    from upath import UPath


@dataclass(frozen=True)
class FileReader:
    """Reads files on this machine and at addresses."""

    def read(self, place: str) -> bytes:
        """The bytes of a file.

        Args:
            place: A path or an address, as `place_of` returns it.

        Raises:
            ImageFailure: It cannot be read.
        """
        if "://" not in place:
            return _read_local(unescape(place))
        address = unescape(place)
        kind, _, rest = address.partition("://")
        try:
            content: bytes = _system(kind, rest.partition("/")[0], _endpoint()).cat_file(address)
        except Exception as error:
            if not isinstance(error, OSError) and not is_remote_error(error):
                raise
            reason = str(error) or type(error).__name__
            raise ImageFailure(FailureCode.UNREADABLE, reason) from error
        return content


def _read_local(path: str) -> bytes:
    try:
        # Neither a path object nor a buffer: for a small file, each takes as long as the system.
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read()
    except OSError as error:
        raise ImageFailure(FailureCode.UNREADABLE, error.strerror or str(error)) from error


def place_of(folder: Location, name: str) -> str:
    """The place of a file, as escaped text.

    Args:
        folder: A local or remote folder.
        name: The path of the file relative to it.
    """
    return escape_path(f"{address_of(folder)}/{name}")


def address_of(folder: Location) -> str:
    """The absolute path of a local folder, or the address of a remote one, without a final slash."""
    if not is_remote(folder):
        return os.fspath(folder.resolve()).rstrip("/")
    system, name = file_system(folder)
    address: str = system.unstrip_protocol(name)
    return address.rstrip("/")


@lru_cache(maxsize=16)
def _system(kind: str, host: str, endpoint: str) -> Any:
    return file_system(cast("UPath", parse_location(f"{kind}://{host}")))[0]


def _endpoint() -> str:
    """Where addresses of object stores lead, which the environment says."""
    return os.environ.get("AWS_ENDPOINT_URL", "")
