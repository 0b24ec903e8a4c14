"""The pictures of the report: mistakes, least certain images, and a gallery of every class."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets import Images, PreparedDataset
from pixelmill.pipeline.image_encoding import encode_tensor_thumbnail
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import Probabilities

# The longer side of a thumbnail, in pixels: about as wide as it is shown.
_LARGE_SIDE, _SMALL_SIDE = 112, 64
_LEAST_CERTAIN = 12
_MAX_PER_CLASS = 8
_FEWEST_PER_CLASS = 4
_MAX_IN_GALLERY = 240
_PNG_START = "iVBORw0KGgo"


@dataclass(frozen=True)
class Picture:
    """A test image and its prediction.

    Attributes:
        file: Its path below the dataset's folder, or its index in a dataset without files.
        source: A PNG or JPEG file as a data URL.
        true_name: The name of the true class.
        predicted: The name of the predicted class.
        probability: The probability of `predicted`.
        true_probability: The probability of `true_name`.
    """

    file: str
    source: str
    true_name: str
    predicted: str
    probability: float
    true_probability: float

    @property
    def is_right(self) -> bool:
        """Whether the prediction is right."""
        return self.true_name == self.predicted


@dataclass(frozen=True)
class PredictedImages:
    """The test images with their predictions.

    Attributes:
        images: The test split.
        files: The name of each image.
        class_names: In the order of the labels.
        probabilities: float32 [images, classes].
    """

    images: Images
    files: Sequence[str]
    class_names: Sequence[str]
    probabilities: Probabilities

    @classmethod
    def of_dataset(cls, dataset: PreparedDataset, probabilities: Probabilities) -> "PredictedImages":
        """The test images of a dataset."""
        return cls(dataset.split("test"), dataset.names("test"), dataset.class_names, probabilities)

    def worst_mistakes(self, count: int) -> list[Picture]:
        """The mistakes with the highest probabilities, in descending order."""
        wrong = np.flatnonzero(self.probabilities.argmax(axis=1) != self.images.labels)
        order = np.argsort(-self.probabilities[wrong].max(axis=1), kind="stable")[:count]
        return [self._picture(index, _LARGE_SIDE) for index in wrong[order].tolist()]

    def least_certain(self, most: int) -> list[Picture]:
        """Up to 12 images whose two highest probabilities are closest, in ascending order."""
        highest = np.sort(self.probabilities, axis=1)[:, -2:]
        order = np.argsort(highest[:, -1] - highest[:, 0], kind="stable")[: min(most, _LEAST_CERTAIN)]
        return [self._picture(index, _LARGE_SIDE) for index in order.tolist()]

    def gallery(self, classes: Sequence[str]) -> dict[str, list[Picture]]:
        """Images of classes, from the highest to the lowest probability of the class, evenly spaced.

        Args:
            classes: The names of the classes. Only as many as have room are in the result, with 4 to 8
                images each, and at most 240 in all.
        """
        shown = classes[: _MAX_IN_GALLERY // _FEWEST_PER_CLASS]
        each = min(_MAX_PER_CLASS, _MAX_IN_GALLERY // max(len(shown), 1))
        label_of = {name: label for label, name in enumerate(self.class_names)}
        found = {}
        for name in shown:
            label = label_of[name]
            members = np.flatnonzero(self.images.labels == label)
            order = members[np.argsort(-self.probabilities[members, label], kind="stable")]
            found[name] = [self._picture(index, _SMALL_SIDE) for index in _evenly(order, each)]
        return found

    def _picture(self, index: int, side: int) -> Picture:
        row, label = self.probabilities[index], int(self.images.labels[index])
        predicted = int(row.argmax())
        return Picture(
            file=self.files[index],
            source=draw_thumbnail(self.images.pixels[index], side),
            true_name=self.class_names[label],
            predicted=self.class_names[predicted],
            probability=float(row[predicted]),
            true_probability=float(row[label]),
        )


def _evenly(order: npt.NDArray[np.int64], count: int) -> list[int]:
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    chosen: list[int] = order[places].tolist()
    return chosen


def draw_thumbnail(pixels: Pixels, side: int) -> str:
    """An image, uint8 [height, width, 1 or 3], at most `side` pixels wide and high, as a data URL."""
    text = base64.b64encode(encode_tensor_thumbnail(pixels, side)).decode()
    return f"data:image/{'png' if text.startswith(_PNG_START) else 'jpeg'};base64,{text}"
