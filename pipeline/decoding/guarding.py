"""Decoding in this process: whatever an image raises becomes the failure of that image alone."""

import ctypes
import errno
import sys
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding.costs import require_affordable
from pixelmill.pipeline.decoding.memory import MEMORY_LIMIT
from pixelmill.pipeline.images import DecodedImage, FailureCode, ImageFailure, decode

P = ParamSpec("P")
R = TypeVar("R")
_TRIES = 2
# The share of the memory that must be gone before an image begins for it to deserve another try.
_USED_BY_OTHERS = 1 / 8
_thread = threading.local()


def decode_guarded(data: bytes, spec: ImageSpec, limits: DecodingLimits) -> DecodedImage:
    """What `decode` gives, or a failure: no image raises anything else.

    The limit on memory holds inside `MEMORY_LIMIT.allowing`, which the caller enters for all the images that
    it decodes together; the limit on time is the caller's, too: only the end of its process stops a decoder.

    Args:
        data: The whole file.
        spec: The tensor to make.
        limits: What decoding may cost.

    Raises:
        ImageFailure: With the code that says why.
    """
    return guard(_decode, limits, data, spec, limits)


def guard(function: Callable[P, R], limits: DecodingLimits, /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call what works on one image, and turn all that it raises into that image's failure.

    Raises:
        ImageFailure: `too_costly` where memory was refused, else what the function says, or its exception.
    """
    last_error = _last_error()
    for _ in range(_TRIES):
        last_error.value = 0
        try:
            return function(*args, **kwargs)
        except Exception as error:  # Decoders raise whatever they stumble over.
            # libtiff and others call a file damaged when they asked for memory in vain: what the C library
            # noted last in this thread tells the two apart.
            if not (_is_out_of_memory(error) or last_error.value == errno.ENOMEM):
                if isinstance(error, ImageFailure):
                    raise
                raise _failure_of(error) from error
        # The images before this one may have used the memory up.
        if MEMORY_LIMIT.measure_anew() < limits.max_memory * _USED_BY_OTHERS:
            break
    raise ImageFailure(
        FailureCode.TOO_COSTLY, f"decoding takes over {limits.max_memory:,} bytes of memory, the limit"
    )


def _decode(data: bytes, spec: ImageSpec, limits: DecodingLimits) -> DecodedImage:
    require_affordable(data, limits)
    return decode(data, spec, limits.max_pixels)


def _failure_of(error: Exception) -> ImageFailure:
    code = FailureCode.UNSUPPORTED if isinstance(error, NotImplementedError) else FailureCode.CORRUPT
    return ImageFailure(code, f"{type(error).__name__}: {error}")


def _is_out_of_memory(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def _last_error() -> ctypes.c_int:
    """The C library's `errno` of this thread; a number that means nothing where that is not known."""
    try:
        found: ctypes.c_int = _thread.last_error
    except AttributeError:
        found = ctypes.c_int()
        if sys.platform == "linux":
            locate = ctypes.CDLL(None).__errno_location
            locate.restype = ctypes.c_void_p
            found = ctypes.c_int.from_address(locate())
        _thread.last_error = found
    return found
