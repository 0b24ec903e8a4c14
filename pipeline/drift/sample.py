"""The images of a run whose measures are kept: an even sample that costs a large run next to nothing.

Every content has a position from 0 to 1, given by its SHA-256. A shard measures the contents whose position
is below a share that falls as the listing grows, so a run measures few more images than the sample holds.
What is below the smallest share of all shards is complete, and so an even sample of the run. As the position
depends on the content alone, a later run that reuses rows finds their measures in the sample of this one.
"""

import base64
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.drift.image_measures import IMAGE_MEASURES, ImageValues

SAMPLE_IMAGES = 4096
"""About as many images are measured of a larger run."""
_ROW = np.dtype([("position", "<f8"), ("values", "<f4", (len(IMAGE_MEASURES),))])


def position_of(sha256: str) -> float:
    """The position of a content, from 0 up to 1; `sha256` is in hexadecimal."""
    return int(sha256[:13], 16) / 16**13


def share_after(images: int) -> float:
    """The share of the contents that is measured, if this many images come before in the listing."""
    return min(1.0, SAMPLE_IMAGES / max(images, 1))


@dataclass(frozen=True, eq=False)
class ImageSample:
    """The measures of all images of a run whose position is below a share.

    Attributes:
        share: From 0 to 1.
        positions: float64 [images], below the share; equal contents have the same one.
        values: float32 [images, measures].
    """

    share: float
    positions: npt.NDArray[np.float64]
    values: ImageValues

    @classmethod
    def of(cls, share: float, positions: npt.ArrayLike, values: ImageValues) -> "ImageSample":
        """The images whose position is below the share."""
        found = np.asarray(positions, np.float64)
        is_below = found < share
        return cls(share, found[is_below], values.reshape(-1, len(IMAGE_MEASURES))[is_below])

    @classmethod
    def join(cls, samples: Iterable["ImageSample"]) -> "ImageSample":
        """The sample of all images together, restricted to the smallest share; empty of no samples."""
        found = list(samples)
        share = min((sample.share for sample in found), default=1.0)
        positions = np.concatenate([np.empty(0), *(sample.positions for sample in found)])
        nothing = np.empty((0, len(IMAGE_MEASURES)), np.float32)
        values = np.concatenate([nothing, *(sample.values for sample in found)])
        return cls.of(share, positions, values)

    def by_position(self) -> "ImageSample":
        """The same sample in ascending order of the positions."""
        order = np.argsort(self.positions, kind="stable")
        return ImageSample(self.share, self.positions[order], self.values[order])

    def to_text(self) -> str:
        """As text, for the metadata of a file."""
        rows = np.zeros(len(self.positions), _ROW)
        rows["position"], rows["values"] = self.positions, self.values
        content = zlib.compress(rows.tobytes(), level=1)
        return f"{self.share!r} {base64.b64encode(content).decode()}"

    @classmethod
    def from_text(cls, text: str) -> "ImageSample":
        """The sample in the result of `to_text`; an empty one of share 0 if there is none."""
        share, _, content = text.partition(" ")
        try:
            rows = np.frombuffer(zlib.decompress(base64.b64decode(content)), _ROW)
            return cls(float(share), rows["position"].copy(), rows["values"].copy())
        except (ValueError, zlib.error):
            return cls.of(0.0, [], np.empty(0, np.float32))
