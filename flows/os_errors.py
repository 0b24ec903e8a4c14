"""Errors of the operating system, such as a full disk, in the three parts of pixelmill's own."""

import errno

from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import WorkError

_FULL = (
    "enough free space",
    "Finished work is kept: free some space and run the same again.",
)
_FORBIDDEN = ("a location that this user may write to", "Choose another.")
_KNOWN = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _FORBIDDEN),
}
_OTHER = ("an accessible path", "Check it.")


def is_for_users(error: OSError) -> bool:
    """Whether the error says all that its user needs, so that no traceback is called for."""
    return error.errno in _KNOWN


def explain_os_error(error: OSError) -> WorkError:
    """An error of the operating system as one of pixelmill, whose text is one line."""
    # Of two files, the second is the one that a copy was being written to.
    named = error.filename2 or error.filename
    place = f" ({printable(str(named))})" if named else ""
    return WorkError(f"{error.strerror or error}{place}", *_KNOWN.get(error.errno or 0, _OTHER))
