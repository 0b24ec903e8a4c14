"""How often a test set has already decided. Each decision by the same images makes the next one less sure."""

from logging import getLogger

from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.registry import read_log
from pixelmill.pipeline.storage import Location

_log = getLogger(__name__)


def count_decisions(store: Location, name: str, test_fingerprint: str) -> int | None:
    """The number of promotions and refusals in a model's log that the same test images decided.

    Returns:
        The number; None if the log cannot be read.
    """
    try:
        entries = read_log(store, name)
    except PixelmillError as error:
        _log.warning("how often these test images have decided is not known: %s", error)
        return None
    return sum(entry.tested_on == test_fingerprint for entry in entries)
