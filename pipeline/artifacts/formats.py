"""The format number in a manifest: what an older pixelmill wrote is read, what a newer one wrote is refused.

A manifest without a number was written before there were any, and counts as format 1. The number of a kind
rises when a program that knows only the older format would read the new one wrongly.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pixelmill.pipeline.errors import RequestError

FORMATS = {"model-bundle": 1, "prediction-table": 1, "store": 1}
"""The newest format of each kind of artifact, which this version writes."""


def format_of(kind: object) -> dict[str, int]:
    """The entry of a new manifest for its format; empty for kinds that only the process itself reads."""
    return {"format": FORMATS[kind]} if isinstance(kind, str) and kind in FORMATS else {}


def require_known_format(place: object, manifest: Mapping[str, Any]) -> None:
    """Check that this version can read an artifact.

    Args:
        place: Where it is, for the message.
        manifest: Its manifest.

    Raises:
        RequestError: A newer version wrote it.
    """
    kind, found = manifest.get("kind"), manifest.get("format", 1)
    newest = FORMATS.get(kind, 1) if isinstance(kind, str) else 1
    if kind not in FORMATS or (type(found) is int and 1 <= found <= newest):
        return
    raise RequestError(
        f"{place} has format {str(found)[:20]} of a {kind}",
        f"format {newest} or an older one, which pixelmill {version('pixelmill')} reads",
        "Install the version of pixelmill that wrote it, or a newer one.",
    )
