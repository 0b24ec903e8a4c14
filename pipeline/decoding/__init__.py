"""Decoding images that nobody vouches for: whatever one of them does becomes that image's failure.

`guarding` bounds the memory that one image takes in this process, `timing` ends a process that stays at one
image too long, `pool` decodes in processes that may end so, and `costs` tells from a file's header alone what
cannot be afforded.
"""

from dataclasses import dataclass

from pixelmill.pipeline.images import DEFAULT_MAX_PIXELS

DEFAULT_MAX_MEMORY = 1 << 30
DEFAULT_MAX_SECONDS = 20.0


@dataclass(frozen=True)
class DecodingLimits:
    """What decoding one image may cost.

    Attributes:
        max_pixels: The largest width times height that is decoded.
        max_memory: How many bytes of memory decoding may take beside the file itself.
        max_seconds: How long decoding may take, in seconds of wall time.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    max_memory: int = DEFAULT_MAX_MEMORY
    max_seconds: float = DEFAULT_MAX_SECONDS
