"""A loaded model that predicts single images, for Python programs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.bundles.metadata import require_metadata
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.images import FORMATS, FailureCode, ImageFailure, Pixels, decode
from pixelmill.pipeline.inference import (
    InferenceSession,
    Probabilities,
    are_probabilities,
    batch_size,
    describe_invalid,
    load_session,
)


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction of a model for one image.

    Attributes:
        label: The top-1 class.
        class_index: The index of the top-1 class.
        probability: The probability of the top-1 class, 0 to 1.
        probabilities: float32 [classes], in the order of the model's classes.
    """

    label: str
    class_index: int
    probability: float
    probabilities: Probabilities


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in memory, ready to predict on the CPU.

    Attributes:
        name: The model's name.
        version: The version number in the registry.
        class_names: The class names, in the order of the outputs.
        image: The input of the model.
        session: The loaded ONNX file.
    """

    name: str
    version: int
    class_names: tuple[str, ...]
    image: ImageSpec
    session: InferenceSession

    @classmethod
    def from_bundle(cls, bundle: ModelBundle) -> "LoadedModel":
        """Load a bundle's ONNX file.

        Raises:
            RequestError: onnxruntime cannot load it, or its metadata contradicts the files beside it.
            WorkError: The file does not match the bundle's manifest.
        """
        session = load_session(bundle.onnx_path, sha256=bundle.onnx_sha256)
        require_metadata(session, bundle)
        return cls(bundle.name, bundle.version, bundle.labels(), bundle.image_spec(), session)

    def predict(self, image: str | Path | bytes) -> Prediction:
        """Predict one image, with the same result, bit for bit, as scoring on a CPU.

        The image is decoded in this process, without the limits on memory and time of scoring.

        Args:
            image: The path or the bytes of an image file.

        Raises:
            RequestError: The file cannot be read or decoded. If it cannot be decoded, `__cause__` is an
                `ImageFailure`, whose `code` is the failure code in a prediction table.
            WorkError: The outputs are not probabilities that add up to 1; `__cause__` is an `ImageFailure`
                as well.
        """
        shown = f"{len(image)} bytes" if isinstance(image, bytes) else printable(str(image))
        data = image if isinstance(image, bytes) else _read(Path(image))
        try:
            pixels = decode(data, self.image).pixels
        except ImageFailure as failure:
            raise RequestError(
                f"an image ({shown}) that cannot be decoded ({failure})",
                f"a complete file in one of the formats {', '.join(FORMATS)}",
                "Check that the file opens in an image viewer, or use another one.",
            ) from failure
        probabilities = self._infer(pixels)
        several = self.session.multi_label
        if not are_probabilities(probabilities[np.newaxis], several)[0]:
            invalid = ImageFailure(FailureCode.INVALID_PREDICTION, describe_invalid(probabilities, several))
            raise WorkError(
                f"{invalid}, predicted by {self.name}@{self.version} for an image ({shown})",
                "probabilities that are at least 0 and add up to 1",
                "Use another version of the model.",
            ) from invalid
        index = int(probabilities.argmax())
        return Prediction(self.class_names[index], index, float(probabilities[index]), probabilities)

    def _infer(self, pixels: Pixels) -> Probabilities:
        """Probabilities, float32 [classes], of one image, uint8 [height, width, channels]."""
        # Rounding depends on the batch size, so it is the one that scoring uses.
        batch: Pixels = np.zeros((batch_size("cpu", pixels.size), *pixels.shape), np.uint8)
        batch[0] = pixels
        first: Probabilities = self.session.probabilities(batch)[0]
        return first


def _read(path: Path) -> bytes:
    try:
        # Reading a pipe would block until another process writes to it.
        data = path.read_bytes() if path.is_file() or not path.exists() else None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if data is None:
        raise _unreadable(path, "not a regular file")
    return data


def _unreadable(path: Path, reason: str) -> RequestError:
    return RequestError(
        f"image {printable(str(path))} cannot be read ({reason})",
        "an image file that this user may read",
        "Check the path and its permissions.",
    )
