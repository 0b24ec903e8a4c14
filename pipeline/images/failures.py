"""Why an image has no prediction."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

_LONGEST_WORDS = 500


class FailureCode(StrEnum):
    """Why an image has no prediction; the first word of a row's `error`."""

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
    """An image that cannot become a tensor; `str()` gives the code, then words, in one line."""

    def __init__(self, code: FailureCode, words: str) -> None:
        super().__init__(code, words)
        self.code = code
        self.words = words

    def __str__(self) -> str:
        # A library's words may be of any length, and hold bytes of the file that are not text.
        text = " ".join(f"{self.code}: {self.words}".split())[:_LONGEST_WORDS]
        return text.encode("utf-8", "backslashreplace").decode()


def corrupt(words: str) -> ImageFailure:
    """The failure of a file that contradicts itself or lacks a part."""
    return ImageFailure(FailureCode.CORRUPT, words)


def unsupported(words: str) -> ImageFailure:
    """The failure of a file that may be whole, but whose pixels cannot be decoded exactly here."""
    return ImageFailure(FailureCode.UNSUPPORTED, words)


@contextmanager
def failing_as(code: FailureCode) -> Iterator[None]:
    """Turn whatever the block raises into an `ImageFailure`, except `MemoryError`.

    Decoders raise a dozen exception types on a damaged file, and a new one with every release.
    """
    try:
        yield
    except (ImageFailure, MemoryError):
        raise
    except Exception as error:
        raise ImageFailure(code, f"{type(error).__name__}: {error}") from error
