"""The model of a run in one worker: loaded from the bytes that were hashed, and run in batches."""

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
from pixelmill.pipeline.predictions.columns import Predictions
from pixelmill.pipeline.scoring import ScoringPlan

# onnxruntime plans its memory again after the first batch of a shape.
_BATCHES_TO_WARM_UP = 3


class RunModel:
    """The model of a run, loaded and warmed up.

    Attributes:
        provider: The execution provider that onnxruntime uses.
        batch_images: The batch size.

    Raises:
        RequestError: The model cannot be loaded, or lacks required metadata.
        WorkError: The file, its classes or its image size have changed since the run started.
    """

    def __init__(self, plan: ScoringPlan) -> None:
        self._session = _load(plan)
        self.provider = self._session.provider
        self._has_embeddings = plan.request.embeddings
        # Reused by all batches: copying is cheaper than allocating.
        shape = (plan.image.height, plan.image.width, plan.image.channels)
        self.batch_images = batch_size(plan.request.provider, math.prod(shape))
        self._batch: Pixels = np.zeros((self.batch_images, *shape), np.uint8)
        for _ in range(_BATCHES_TO_WARM_UP):
            self._predict(None, [])

    def infer(self, images: Sequence[tuple[int, Pixels]], predictions: Predictions) -> float:
        """Fill rows with predictions; a row whose outputs are not probabilities becomes a failed one.

        Args:
            images: The row index and the tensor of each image; at most `batch_images`.
            predictions: The rows to fill.

        Returns:
            The time taken in seconds.
        """
        start = time.perf_counter()
        for at, (_, pixels) in enumerate(images):
            self._batch[at] = pixels
        # The batch always has the same size, with stale images at its end: not even the last bit of a
        # prediction may depend on how many images happen to share the batch.
        places = [place for place, _ in images]
        probabilities = self._predict(predictions, places)
        predictions.class_indices[places], predictions.probabilities[places] = _top_k(
            probabilities, predictions.class_indices.shape[1]
        )
        for row in np.flatnonzero(~are_probabilities(probabilities, self._session.multi_label)):
            words = describe_invalid(probabilities[row], self._session.multi_label)
            failure = ImageFailure(FailureCode.INVALID_PREDICTION, words)
            predictions.errors[places[row]] = str(failure)
        return time.perf_counter() - start

    def _predict(self, predictions: Predictions | None, places: Sequence[int]) -> Probabilities:
        """Predict the batch, of which the first images belong to these rows, and fill in the embeddings."""
        if not self._has_embeddings:
            return self._session.probabilities(self._batch)[: len(places)]
        probabilities, embeddings = self._session.probabilities_and_embeddings(self._batch)
        if predictions is not None:
            predictions.embeddings[places] = embeddings[: len(places)]
        return probabilities[: len(places)]


def _load(plan: ScoringPlan) -> InferenceSession:
    """Load the model, checking that its hash is that of the run, so that no row comes from another model."""
    bundle = plan.request.bundle
    session = load_session(bundle.onnx_path, plan.request.provider, sha256=bundle.onnx_sha256)
    require_metadata(session, bundle)
    if (labels_of(session), image_spec_of(session)) != (plan.labels, plan.image):
        raise WorkError(
            f"{bundle.folder}, whose classes or image size have changed since the run started",
            "the bundle that the run started with",
            "Restore the bundle and run the same command again.",
        )
    return session


def _top_k(probabilities: Probabilities, count: int) -> tuple[npt.NDArray[np.intp], Probabilities]:
    """The top classes and their probabilities, both [batch, count]; ties go to the lower class index."""
    if count == 1:
        order = probabilities.argmax(axis=1)[:, np.newaxis]
    else:
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return order, probabilities[np.arange(len(probabilities))[:, np.newaxis], order]
