"""What an ONNX file says of itself: enough to score with it when nothing else came along."""

import json

from pixelmill.pipeline.artifacts import canonical_json, read_json
from pixelmill.pipeline.bundles import LABELS_FILE, PREPROCESSING_FILE, ModelBundle
from pixelmill.pipeline.bundles.preprocessing import preprocessing_sha256
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.inference import InferenceSession

CLASS_NAMES, PREPROCESSING, PREPROCESSING_SHA256 = "class_names", "preprocessing", "preprocessing_sha256"
# And the file of the bundle that says the same.
_NEEDED_TO_SCORE = {
    CLASS_NAMES: LABELS_FILE,
    PREPROCESSING: PREPROCESSING_FILE,
    PREPROCESSING_SHA256: PREPROCESSING_FILE,
}


def describe_itself(class_names: tuple[str, ...], preprocessing: dict[str, object]) -> dict[str, str]:
    """The part of the metadata that a scorer needs."""
    return {
        CLASS_NAMES: json.dumps(class_names, ensure_ascii=False),
        PREPROCESSING: canonical_json(preprocessing),
        PREPROCESSING_SHA256: preprocessing_sha256(preprocessing),
    }


def require_metadata(session: InferenceSession, bundle: ModelBundle) -> None:
    """See that a model says of itself what a scorer needs, and the same as the files beside it.

    Raises:
        RequestError: Something is missing or differs; it is named.
    """
    found = session.metadata
    missing = [name for name in _NEEDED_TO_SCORE if name not in found]
    if missing:
        raise RequestError(
            f"{bundle.onnx_path} whose metadata has no {', '.join(missing)}",
            "an ONNX file that says how images are prepared for it and what its classes are",
            "Take a bundle that pixelmill exported; the file was written or rewritten by another program.",
        )
    beside = describe_itself(bundle.labels(), read_json(bundle.folder / PREPROCESSING_FILE))
    differing = [name for name in _NEEDED_TO_SCORE if found[name] != beside[name]]
    if differing:
        file = _NEEDED_TO_SCORE[differing[0]]
        raise RequestError(
            f"{bundle.onnx_path} whose {differing[0]} differs from {file} beside it",
            "a file and a bundle that belong together",
            "Restore the bundle from a copy, or export the model again.",
        )


def labels_of(session: InferenceSession) -> tuple[str, ...]:
    """The class names, in the order of the probabilities, as the model's own file has them."""
    return tuple(json.loads(session.metadata[CLASS_NAMES]))


def image_spec_of(session: InferenceSession) -> ImageSpec:
    """The tensor an image must become, as the model's own file has it."""
    return ImageSpec.model_validate(json.loads(session.metadata[PREPROCESSING])["spec"])
