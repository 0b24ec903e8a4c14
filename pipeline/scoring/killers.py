"""Finding the images of a shard that kill the worker which takes them up."""

from collections.abc import Callable, Sequence
from logging import getLogger

from pipeline.scoring.listing import ListedImage

_log = getLogger(__name__)


def find_killers(images: Sequence[ListedImage], survives: Callable[[int, int], bool]) -> frozenset[int]:
    """Halve a shard until the images are found that kill a worker; their places in it come back.

    Args:
        images: The shard.
        survives: Whether a worker lives that answers the images from one place to before another.
    """

    def search(start: int, stop: int) -> list[int]:
        if survives(start, stop):
            return []
        if stop - start == 1:
            _log.warning("%s kills its worker", images[start].path)
            return [start]
        middle = (start + stop) // 2
        return search(start, middle) + search(middle, stop)

    return frozenset(search(0, len(images)))
