"""The errors of Pillow's libtiff during decompression.

libtiff prints its errors on the terminal and continues after some of them. Here, they are collected instead.
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
    # libtiff calls this in the decoding thread. `words` is a format string, whose arguments are not filled
    # in.
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
        # This build of Pillow hides its libtiff, which leaves only the errors that Pillow raises.
        return


@contextmanager
def libtiff_errors() -> Iterator[list[bytes]]:
    """Collect the errors of libtiff in the block, on this thread."""
    _install_handler()
    _of_thread.errors = errors = list[bytes]()
    try:
        yield errors
    finally:
        _of_thread.errors = None
