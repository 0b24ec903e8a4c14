"""Decoding of untrusted images: whatever an image does becomes a failure of that image alone.

`guard` limits the memory that an image takes in this process, `time_limit` kills a process that spends too
long on an image, `pool` decodes in processes that may be killed, and `costs` rejects files that would exceed
a limit from their header alone.
"""

from dataclasses import dataclass

from pixelmill.pipeline.images import DEFAULT_MAX_PIXELS

DEFAULT_MAX_MEMORY = 1 << 30
DEFAULT_MAX_SECONDS = 20.0


@dataclass(frozen=True)
class DecodingLimits:
    """Limits on decoding one image.

    Attributes:
        max_pixels: The largest width times height.
        max_memory: The largest memory in bytes, not counting the file itself.
        max_seconds: The longest time in seconds of wall time.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    max_memory: int = DEFAULT_MAX_MEMORY
    max_seconds: float = DEFAULT_MAX_SECONDS
