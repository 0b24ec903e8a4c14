"""What Pillow's libtiff objects to while it decompresses.

libtiff prints its errors on the terminal, and after some of them goes on with what it has. Here they are
collected instead.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from PIL import _imaging

_ErrorHandler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
_of_thread = threading.local()


def _collect(module: bytes | None, words: bytes, _values: int) -> None:
    # libtiff calls this on the thread that decodes. Its values stay where they are: the words are a pattern.
    errors = getattr(_of_thread, "errors", None)
    if errors is not None:
        errors.append(b"%b: %b" % (module or b"libtiff", words))


_HANDLER = _ErrorHandler(_collect)


@cache
def _install_handler() -> None:
    try:
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler.restype = ctypes.c_void_p
        library.TIFFSetErrorHandler(_HANDLER)
    except (AttributeError, OSError):
        # A Pillow that hides its libtiff; what Pillow itself raises is then all there is.
        return


@contextmanager
def libtiff_errors() -> Iterator[list[bytes]]:
    """The errors of libtiff in the block, on this thread."""
    _install_handler()
    _of_thread.errors = errors = list[bytes]()
    try:
        yield errors
    finally:
        _of_thread.errors = None
