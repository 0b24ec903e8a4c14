"""The measures of a shard's images, for the sample on which drift is found."""

from collections.abc import Iterable, Sequence

import numpy as np

from pixelmill.pipeline.drift.image_measures import IMAGE_MEASURES, ImageValues, measure_images
from pixelmill.pipeline.drift.sample import ImageSample, position_of, share_after
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.predictions.columns import Predictions
from pixelmill.pipeline.scoring.shards import images_before


class ShardSample:
    """Measures images of one shard, and takes the measures of reused rows from an earlier table."""

    def __init__(self, number: int, images: int, previous: ImageSample | None) -> None:
        """Begin a shard.

        Args:
            number: The number of the shard.
            images: The number of its images; of a large shard, those in memory at once.
            previous: The sample of the earlier table; None without one.
        """
        self._share = share_after(images_before(number, images))
        self._previous = previous
        self._known: dict[float, ImageValues] = {}
        self._positions: list[float] = []
        self._values: list[ImageValues] = []

    def measure(self, images: Sequence[tuple[int, Pixels]], predictions: Predictions) -> None:
        """Measure decoded images, given by their row and their tensor."""
        positions = [position_of(predictions.sha256[row] or "") for row, _ in images]
        chosen = [at for at, position in enumerate(positions) if position < self._share]
        if not chosen:
            return
        rows = [images[at][0] for at in chosen]
        values = measure_images(
            [images[at][1] for at in chosen], predictions.widths[rows], predictions.heights[rows]
        )
        for at, measured in zip(chosen, values, strict=True):
            self._add(positions[at], measured)

    def copy(self, rows: Iterable[int], predictions: Predictions) -> None:
        """Add rows whose contents have been measured before in this shard."""
        for row in rows:
            position = position_of(predictions.sha256[row] or "")
            if position in self._known:
                self._add(position, self._known[position])

    def reuse(self, rows: Sequence[int], predictions: Predictions) -> None:
        """Add rows that were reused from the earlier table, as far as its own sample reaches."""
        if not rows or self._previous is None:
            return
        # The sample of the shard is complete only as far as that of the earlier table.
        self._share = min(self._share, self._previous.share)
        for row in rows:
            position = position_of(predictions.sha256[row] or "")
            if position < self._share:
                place = int(np.searchsorted(self._previous.positions, position))
                if place < len(self._previous.positions) and self._previous.positions[place] == position:
                    self._add(position, self._previous.values[place])

    def finish(self, earlier: ImageSample | None) -> ImageSample:
        """The sample of the shard, with that of its earlier part."""
        values = np.stack(self._values) if self._values else np.empty((0, len(IMAGE_MEASURES)), np.float32)
        sample = ImageSample.of(self._share, self._positions, values)
        return sample if earlier is None else ImageSample.join([earlier, sample])

    def _add(self, position: float, values: ImageValues) -> None:
        self._known[position] = values
        self._positions.append(position)
        self._values.append(values)
