"""Images that cost more time than they may, as one process of a run tells the others.

A process that stays at an image too long ends itself. What it writes down first, by the hash of the image's
bytes, is read by whoever takes up the shard after it, which then does not decode the image again.
"""

from collections.abc import Mapping
from pathlib import Path

from pixelmill.pipeline.artifacts import write_text
from pixelmill.pipeline.images import FailureCode, ImageFailure
from pixelmill.pipeline.locations import children, content_of

COSTLY_FOLDER = "costly"


def note_costly(work: Path, max_seconds: float, sha256: str) -> None:
    """Write down, in a run's work folder, that decoding an image took too long."""
    failure = ImageFailure(FailureCode.TOO_COSTLY, f"decoding takes over {max_seconds:g} s, the limit")
    write_text(work / COSTLY_FOLDER / sha256, str(failure))


def read_costly(work: Path) -> Mapping[str, str]:
    """The error of each image that was noted so far, by the SHA-256 of its bytes."""
    try:
        found = [path for path in children(work / COSTLY_FOLDER) if not path.name.startswith(".")]
    except FileNotFoundError:
        return {}
    return {path.name: content_of(path).decode() for path in found}
