"""A loaded model that predicts single images, for programs and the command line."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import decode
from pixelmill.pipeline.inference import InferenceSession, Probabilities, load_session


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for one image.

    Attributes:
        label: The top-1 class.
        class_index: Its index among the model's classes.
        probability: Of the top-1 class, 0 to 1.
        probabilities: float32 [classes], in the order of the model's classes.
    """

    label: str
    class_index: int
    probability: float
    probabilities: Probabilities


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        name: The model's name.
        version: Its number in the registry.
        class_names: In the order of the outputs.
        image: The tensor that an image becomes.
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
            RequestError: onnxruntime cannot load it.
            WorkError: The file is not the one that the bundle's manifest lists.
        """
        session = load_session(bundle.onnx_path, sha256=bundle.onnx_sha256)
        return cls(bundle.name, bundle.version, bundle.labels(), bundle.image_spec(), session)

    def predict(self, image: str | Path | bytes) -> Prediction:
        """Predict one image.

        Args:
            image: The path of a file, or the bytes of one.

        Raises:
            ImageFailure: The bytes are no image that can be decoded; `str()` gives the reason.
            OSError: The file cannot be read.
        """
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        pixels = decode(data, self.image).pixels
        probabilities = self.session.probabilities(pixels[np.newaxis])[0]
        index = int(probabilities.argmax())
        return Prediction(self.class_names[index], index, float(probabilities[index]), probabilities)
