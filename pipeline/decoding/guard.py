"""Decoding in this process: any exception becomes a failure of that image alone."""

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
# An image is tried again only if earlier ones had used up at least this share of the memory limit.
_USED_BY_OTHERS = 1 / 8
_thread = threading.local()


def decode_guarded(data: bytes, spec: ImageSpec, limits: DecodingLimits) -> DecodedImage:
    """Call `decode`, turning every exception into an `ImageFailure`.

    The caller enforces the limits: on memory with `MEMORY_LIMIT.allowing` around all images that it decodes
    together, and on time by killing the process, as nothing else stops a decoder.

    Args:
        data: The whole file.
        spec: The shape of the tensor.
        limits: Limits on decoding.

    Raises:
        ImageFailure: The image cannot be decoded; the code gives the reason.
    """
    return guard(_decode, limits, data, spec, limits)


def guard(function: Callable[P, R], limits: DecodingLimits, /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function that processes one image, turning every exception into an `ImageFailure`.

    Raises:
        ImageFailure: `too_costly` if an allocation failed; otherwise the function's own failure, or one made
            from its exception.
    """
    last_error = _last_error()
    for _ in range(_TRIES):
        last_error.value = 0
        try:
            return function(*args, **kwargs)
        except Exception as error:  # Decoders raise exceptions of any type.
            # After a failed allocation, libtiff and others report a damaged file; `errno` distinguishes the
            # two cases.
            if not (_is_out_of_memory(error) or last_error.value == errno.ENOMEM):
                if isinstance(error, ImageFailure):
                    raise
                raise _failure_of(error) from error
        # The images before this one may have used the memory up.
        if MEMORY_LIMIT.remeasure() < limits.max_memory * _USED_BY_OTHERS:
            break
    raise ImageFailure(
        FailureCode.TOO_COSTLY, f"decoding exceeds the limit of {limits.max_memory:,} bytes of memory"
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
    """The C library's `errno` of this thread; an unrelated variable where it is not available."""
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
