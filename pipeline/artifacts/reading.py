"""Reading of JSON files that someone else may have written."""

import json
from typing import Any

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.storage import Location, read_content

_LARGEST_JSON = 256 * 2**20


def read_json(path: Location, largest: int = _LARGEST_JSON) -> Any:
    """Read a JSON file of at most `largest` bytes.

    Raises:
        RequestError: The file is missing, too large, or not JSON.
    """
    try:
        return json.loads(read_content(path, largest))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(
            f"{path} cannot be read ({_reason(error)})",
            "a JSON file written by pixelmill",
            "Check the path, or create the artifact again.",
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
