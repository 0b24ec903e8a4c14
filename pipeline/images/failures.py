"""Failures: the reasons why an image has no prediction."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

_MAX_LENGTH = 500


class FailureCode(StrEnum):
    """The reason why an image has no prediction; the first word in the column `error`."""

    BAD_PATH = "bad_path"
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    NOT_A_FILE = "not_a_file"
    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_LARGE = "too_large"
    TOO_COSTLY = "too_costly"
    UNSUPPORTED = "unsupported"
    WORKER_DIED = "worker_died"
    INVALID_PREDICTION = "invalid_prediction"


class ImageFailure(Exception):
    """An image that cannot be predicted; `str()` gives the code and an explanation in one line."""

    def __init__(self, code: FailureCode, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        # A library's message may be very long, and contain bytes of the file that are not text.
        text = " ".join(f"{self.code}: {self.reason}".split())[:_MAX_LENGTH]
        return text.encode("utf-8", "backslashreplace").decode()


def corrupt(reason: str) -> ImageFailure:
    """The failure of a file that is inconsistent or incomplete."""
    return ImageFailure(FailureCode.CORRUPT, reason)


def unsupported(reason: str) -> ImageFailure:
    """The failure of a file that may be intact, but cannot be decoded exactly."""
    return ImageFailure(FailureCode.UNSUPPORTED, reason)


@contextmanager
def failing_as(code: FailureCode) -> Iterator[None]:
    """Turn any exception in the block except `MemoryError` into an `ImageFailure`.

    Decoders raise many exception types on damaged files, and new ones with every release.
    """
    try:
        yield
    except (ImageFailure, MemoryError):
        raise
    except Exception as error:
        raise ImageFailure(code, f"{type(error).__name__}: {error}") from error
