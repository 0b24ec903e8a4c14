"""The metadata in an ONNX file: enough to score with the file alone."""

import json
from typing import Any

from pixelmill.pipeline.artifacts import canonical_json, read_json
from pixelmill.pipeline.bundles import (
    LABELS_FILE,
    METRICS_FILE,
    PREPROCESSING_FILE,
    ModelBundle,
    says_multi_label,
    thresholds_in,
)
from pixelmill.pipeline.bundles.preprocessing import preprocessing_sha256
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.inference import InferenceSession
from pixelmill.pipeline.labels import MULTI_LABEL

CLASS_NAMES, PREPROCESSING, PREPROCESSING_SHA256 = "class_names", "preprocessing", "preprocessing_sha256"
TEMPERATURE, DECISION_THRESHOLDS = "temperature", "decision_thresholds"
# Each metadata entry, and the bundle's file with the same content.
_NEEDED_TO_SCORE = {
    CLASS_NAMES: LABELS_FILE,
    PREPROCESSING: PREPROCESSING_FILE,
    PREPROCESSING_SHA256: PREPROCESSING_FILE,
}


def scoring_metadata(class_names: tuple[str, ...], preprocessing: dict[str, object]) -> dict[str, str]:
    """The metadata entries that scoring needs."""
    return {
        CLASS_NAMES: json.dumps(class_names, ensure_ascii=False),
        PREPROCESSING: canonical_json(preprocessing),
        PREPROCESSING_SHA256: preprocessing_sha256(preprocessing),
        **({MULTI_LABEL: "true"} if says_multi_label(preprocessing) else {}),
    }


def decision_metadata(metrics: dict[str, Any] | None) -> dict[str, str]:
    """The metadata entries for what `metrics.json` says of a temperature and of thresholds."""
    calibration = (metrics or {}).get("calibration") or {}
    thresholds = thresholds_in(metrics)
    return {
        **({TEMPERATURE: str(calibration["temperature"])} if calibration.get("is_used") else {}),
        **({DECISION_THRESHOLDS: json.dumps(thresholds)} if thresholds else {}),
    }


def require_metadata(session: InferenceSession, bundle: ModelBundle) -> None:
    """Check that an ONNX file has the metadata that scoring needs, equal to the bundle's own files.

    Raises:
        RequestError: An entry is missing or differs.
    """
    found = session.metadata
    missing = [name for name in _NEEDED_TO_SCORE if name not in found]
    if missing:
        raise RequestError(
            f"{bundle.onnx_path} whose metadata has no {', '.join(missing)}",
            "an ONNX file whose metadata contains its class names and preprocessing",
            "Use a bundle exported by pixelmill; another program wrote or rewrote this file.",
        )
    beside = scoring_metadata(bundle.labels(), read_json(bundle.folder / PREPROCESSING_FILE))
    files = dict(_NEEDED_TO_SCORE)
    if MULTI_LABEL in found or MULTI_LABEL in beside:
        files[MULTI_LABEL] = PREPROCESSING_FILE
    thresholds = bundle.decision_thresholds()
    if thresholds or DECISION_THRESHOLDS in found:
        files[DECISION_THRESHOLDS] = METRICS_FILE
        beside[DECISION_THRESHOLDS] = json.dumps(thresholds)
    differing = [name for name in files if found.get(name) != beside.get(name)]
    if differing:
        file = files[differing[0]]
        raise RequestError(
            f"{bundle.onnx_path} whose {differing[0]} differs from {file} in the same folder",
            "an ONNX file that belongs to its bundle",
            "Restore the bundle from a copy, or export the model again.",
        )


def labels_of(session: InferenceSession) -> tuple[str, ...]:
    """The class names in the ONNX file's metadata, in the order of the probabilities."""
    return tuple(json.loads(session.metadata[CLASS_NAMES]))


def image_spec_of(session: InferenceSession) -> ImageSpec:
    """The input tensor described in the ONNX file's metadata."""
    return ImageSpec.model_validate(json.loads(session.metadata[PREPROCESSING])["spec"])
