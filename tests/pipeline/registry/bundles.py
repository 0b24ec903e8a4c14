"""Bundles and versions for tests of the registry, without any training."""

from pathlib import Path

from pixelmill.pipeline.artifacts import publishing, write_json
from pixelmill.pipeline.bundles import (
    BASELINE_FILE,
    LABELS_FILE,
    METRICS_FILE,
    ONNX_FILE,
    PARITY_FILE,
    PREPROCESSING_FILE,
    ModelBundle,
    open_bundle,
)
from pixelmill.pipeline.registry import ModelVersion, list_models, register_bundle, reserve_version
from pixelmill.pipeline.storage import Location, local_path


def write_bundle(
    folder: Path, name: str, version: int, accuracy: float, labels: tuple[str, ...] = ("cat", "dog")
) -> ModelBundle:
    """Write a complete bundle, except that its ONNX file holds no network."""
    test = {
        "accuracy": accuracy,
        "accuracy_interval": [accuracy - 0.001, accuracy + 0.001],
        "loss": 0.5,
        "images": 400,
        "largest_class": {"name": labels[0], "share": 0.5},
        "never_predicted": [],
        "balanced_accuracy": accuracy,
        "balanced_accuracy_interval": [accuracy - 0.001, accuracy + 0.001],
    }
    rows = [{"name": label, "recall": accuracy, "images": 200, "predictions": 200} for label in labels]
    contents: dict[str, object] = {
        LABELS_FILE: labels,
        PREPROCESSING_FILE: {"spec": {"height": 8, "width": 8, "channels": 1}},
        BASELINE_FILE: {"class_counts": [1, 1], "confidence_counts": [1] * 10},
        METRICS_FILE: {"test": test, "classes": rows},
        PARITY_FILE: {"images": 4, "label_flips": 0, "max_abs_difference": 0.0},
    }
    with publishing(folder, {"kind": "model-bundle", "name": name, "version": version}) as staging:
        (staging / ONNX_FILE).write_bytes(f"network {name} {version}".encode())
        for file, content in contents.items():
            write_json(staging / file, content)
    return open_bundle(folder)


def register(
    store: Location, name: str = "digits", accuracy: float = 0.9, folder: Path | None = None
) -> ModelBundle:
    """Register a new version like a retraining run.

    Args:
        store: The artifacts root, local or remote.
        name: The name of the model.
        accuracy: The test accuracy in its metrics.
        folder: A new local folder for the bundle; by default, below the store, which must then be local.
    """
    version = reserve_version(store, name)
    folder = folder or local_path(store) / "runs" / f"{name}-{version}"
    return register_bundle(store, write_bundle(folder, name, version, accuracy))


def versions_in(store: Location) -> list[ModelVersion]:
    """The registered versions, none of which may be damaged."""
    listed = list_models(store)
    versions = [entry for entry in listed if isinstance(entry, ModelVersion)]
    assert versions == listed
    return versions
