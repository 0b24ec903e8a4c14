"""Passwords in addresses: Prefect keeps parameters, logs and states, and shows them to everybody.

The command gives a flow its overrides without them, and this process remembers the full text.
"""

import logging
import traceback
from collections.abc import Iterable

from pixelmill.pipeline.display import without_passwords
from pixelmill.pipeline.errors import RequestError

_full_texts: dict[str, str] = {}


def hide(overrides: Iterable[str]) -> tuple[str, ...]:
    """The overrides without passwords, for `reveal` in the same process."""
    given = tuple(overrides)
    shown = tuple(map(without_passwords, given))
    _full_texts.update(zip(shown, given, strict=True))
    return shown


def reveal(overrides: Iterable[str]) -> tuple[str, ...]:
    """The overrides that `hide` was given.

    Raises:
        RequestError: One has a password that Prefect has stored, or that this process does not know.
    """
    return tuple(_reveal(override) for override in overrides)


def _reveal(override: str) -> str:
    if override in _full_texts:
        return _full_texts[override]
    if without_passwords(override) != override or "://***@" in override:
        raise RequestError(
            f"the parameter `overrides` has {override!r}, an address with a password",
            "parameters without passwords, because Prefect stores and shows them",
            "Write the address into a recipe file on the worker's machine, and name that file in `recipe`.",
        )
    return override


def hide_in_logs() -> None:
    """Replace passwords in whatever this process logs from now on."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            if _hide_in_record not in handler.filters:
                handler.addFilter(_hide_in_record)


def _hide_in_record(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    shown = without_passwords(message)
    if shown != message:
        record.msg, record.args = shown, ()
    if record.exc_info and record.exc_info[0] is not None:
        # A formatter shows this text, if there is one, instead of the exception.
        record.exc_text = without_passwords("".join(traceback.format_exception(*record.exc_info)).rstrip())
    return True
