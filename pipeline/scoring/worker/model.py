"""The model of a run in one worker: loaded from the bytes that were hashed, and asked in batches."""

import math
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.bundles.metadata import image_spec_of, labels_of, require_metadata
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import FailureCode, ImageFailure, Pixels
from pixelmill.pipeline.inference import (
    InferenceSession,
    Probabilities,
    are_probabilities,
    batch_size,
    describe_invalid,
    load_session,
)
from pixelmill.pipeline.predictions.columns import Answers
from pixelmill.pipeline.scoring import ScoringPlan

# onnxruntime lays its memory out anew after the first batch of a shape.
_BATCHES_TO_WARM_UP = 3


class RunModel:
    """The model that a run began with, ready to infer.

    Attributes:
        provider: The execution provider that onnxruntime uses.
        batch_images: How many images are inferred at once.

    Raises:
        RequestError: It cannot be loaded, or does not say what a scorer needs.
        WorkError: The file, or what it says of its classes and images, is not what the run began with.
    """

    def __init__(self, plan: ScoringPlan) -> None:
        self._session = _load(plan)
        self.provider = self._session.provider
        # One for all batches: fresh memory costs more time than the copying.
        shape = (plan.image.height, plan.image.width, plan.image.channels)
        self.batch_images = batch_size(plan.request.provider, math.prod(shape))
        self._batch: Pixels = np.zeros((self.batch_images, *shape), np.uint8)
        for _ in range(_BATCHES_TO_WARM_UP):
            self._session.probabilities(self._batch)

    def infer(self, images: Sequence[tuple[int, Pixels]], answers: Answers) -> float:
        """Give rows their predictions; what are no probabilities makes a row a failed one.

        Args:
            images: The place of each image's row, and its tensor; at most `batch_images`.
            answers: Gets the predictions.

        Returns:
            The seconds it took.
        """
        start = time.perf_counter()
        for at, (_, pixels) in enumerate(images):
            self._batch[at] = pixels
        # A batch of always one size, whatever fills its end: an image's answer must not depend, not in its
        # last bit, on how many others happen to be beside it.
        probabilities = self._session.probabilities(self._batch)[: len(images)]
        places = [place for place, _ in images]
        answers.choices[places], answers.probabilities[places] = _likeliest(
            probabilities, answers.choices.shape[1]
        )
        for row in np.flatnonzero(~are_probabilities(probabilities)):
            failure = ImageFailure(FailureCode.INVALID_PREDICTION, describe_invalid(probabilities[row]))
            answers.errors[places[row]] = str(failure)
        return time.perf_counter() - start


def _load(plan: ScoringPlan) -> InferenceSession:
    """The model whose bytes have the hash that the run began with: no row is ever another model's."""
    bundle = plan.request.bundle
    session = load_session(bundle.onnx_path, plan.request.provider, sha256=bundle.onnx_sha256)
    require_metadata(session, bundle)
    if (labels_of(session), image_spec_of(session)) != (plan.labels, plan.image):
        raise WorkError(
            f"{bundle.folder} with other classes or another image size than when the run began",
            "the bundle that the run began with",
            "Restore it, and run the same command again.",
        )
    return session


def _likeliest(probabilities: Probabilities, count: int) -> tuple[npt.NDArray[np.intp], Probabilities]:
    """The classes of the highest probabilities and these, [batch, count]; of equal ones the first class."""
    if count == 1:
        order = probabilities.argmax(axis=1)[:, np.newaxis]
    else:
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return order, probabilities[np.arange(len(probabilities))[:, np.newaxis], order]
