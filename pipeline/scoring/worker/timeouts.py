"""Images over the decoding time limit, shared between the processes of a run.

A process that spends too long on an image kills itself, but first records the hash of the image's bytes. The
process that runs the shard next reads the record and does not decode the image again.
"""

from collections.abc import Mapping

from pixelmill.pipeline.artifacts import write_text
from pixelmill.pipeline.images import FailureCode, ImageFailure
from pixelmill.pipeline.storage import Location, children, read_content

TIMEOUTS_FOLDER = "timeouts"


def record_timeout(work: Location, max_seconds: float, sha256: str) -> None:
    """Record in the work folder of a run that decoding an image took too long."""
    failure = ImageFailure(FailureCode.TOO_COSTLY, f"decoding exceeds the limit of {max_seconds:g} s")
    write_text(work / TIMEOUTS_FOLDER / sha256, str(failure))


def read_timeouts(work: Location) -> Mapping[str, str]:
    """The errors recorded so far, by the SHA-256 of the image's bytes."""
    try:
        found = [path for path in children(work / TIMEOUTS_FOLDER) if not path.name.startswith(".")]
    except FileNotFoundError:
        return {}
    return {path.name: read_content(path).decode() for path in found}
