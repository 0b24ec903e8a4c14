"""The source of an export: a trained model and its metadata."""

import re
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import Any, Literal

from pixelmill.pipeline.artifacts import read_json, verify_files
from pixelmill.pipeline.bundles import METRICS_FILE, MODEL_FILE, ModelBundle, read_bundle_manifest
from pixelmill.pipeline.config import ExportSpec, ImageSpec, Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.evaluation import Evaluation
from pixelmill.pipeline.export import PixelRange
from pixelmill.pipeline.export.keras_loader import (
    ImageSize,
    inspect_network,
    require_keras_file,
    require_labels,
)
from pixelmill.pipeline.export.outputs import require_one_class_per_image, require_probability_per_class
from pixelmill.pipeline.export.runtimes import OnnxVersion, choose_version
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.training import TrainedModel


@dataclass(frozen=True)
class ExportSource:
    """A trained model, and what its bundle records about it.

    Attributes:
        model_path: The Keras file.
        name: The model's name.
        version: The version number, starting at 1.
        class_names: The class names, in the order of the outputs.
        image: The model's input.
        export: The export settings, including the parity tolerance.
        facts: Additional entries of the bundle's manifest: run, dataset, recipe, seed.
        recipe: The recipe that trained the model; None if it was trained elsewhere.
        results: The folder of the evaluation, whose metrics, baseline and report are copied to the bundle, or
            of another bundle, from which the list of training images is copied as well.
        dataset: The dataset of the run, whose images the bundle lists; None if there was no run.
        pixel_range: The range of pixels that the model expects; models trained by pixelmill take 0 to 255.
        from_logits: Whether to add a softmax, or with `multi_label` a sigmoid, to the outputs.
        multi_label: Whether each class has a probability of its own.
        temperature: What to divide the logits by before the softmax; 1 also for a model that has it inside.
    """

    model_path: Path
    name: str
    version: int
    class_names: tuple[str, ...]
    image: ImageSpec
    export: ExportSpec
    facts: dict[str, object] = field(default_factory=dict)
    recipe: Recipe | None = None
    results: Path | None = None
    dataset: PreparedDataset | None = None
    pixel_range: PixelRange = "0..255"
    from_logits: bool = False
    multi_label: bool = False
    temperature: float = 1.0

    def metrics(self) -> dict[str, Any] | None:
        """The metrics of the evaluation; None if there was none."""
        path = self.results and self.results / METRICS_FILE
        return read_json(path) if path and path.is_file() else None


def source_of_run(
    model: TrainedModel,
    evaluation: Evaluation,
    dataset: PreparedDataset,
    recipe: Recipe,
    run_id: str,
    version: int,
) -> ExportSource:
    """The source of the export in a retraining run."""
    calibration = read_json(evaluation.folder / METRICS_FILE).get("calibration")
    return ExportSource(
        model_path=model.model_path,
        name=recipe.name,
        version=version,
        class_names=dataset.class_names,
        image=recipe.image,
        export=recipe.export,
        facts={
            "run_id": run_id,
            "dataset_fingerprint": dataset.fingerprint,
            "seed": recipe.training.seed,
            "recipe": recipe.model_dump(mode="json"),
            **({"exclusions": dict(dataset.exclusions)} if dataset.exclusions else {}),
        },
        recipe=recipe,
        results=evaluation.folder,
        dataset=dataset,
        temperature=calibration["temperature"] if calibration and calibration["is_used"] else 1.0,
    )


_log = getLogger(__name__)
_INHERITED_FACTS = ("run_id", "dataset_fingerprint", "seed", "recipe", "exclusions")


def export_spec_of(bundle: ModelBundle) -> ExportSpec:
    """The settings with which a bundle was exported."""
    manifest = read_bundle_manifest(bundle.folder)
    known = manifest.get("export") or manifest.get("recipe", {}).get("export", {})
    return ExportSpec.model_validate(known)


def is_written_for(bundle: ModelBundle, export: ExportSpec) -> bool:
    """Whether a bundle's ONNX file already has the versions that these export settings require."""
    manifest = read_bundle_manifest(bundle.folder)
    before = export_spec_of(bundle)
    found = OnnxVersion(manifest["opset"], manifest.get("ir_version", choose_version(before).ir_version))
    return found == choose_version(export)


def source_of_bundle(bundle: ModelBundle, export: ExportSpec) -> ExportSource:
    """The Keras model in a bundle, to export it again with other settings.

    Raises:
        WorkError: The bundle's files are damaged.
    """
    manifest = verify_files(bundle.folder)
    recipe = manifest.get("recipe")
    return ExportSource(
        model_path=bundle.folder / MODEL_FILE,
        name=bundle.name,
        version=bundle.version,
        class_names=bundle.labels(),
        image=bundle.image_spec(),
        export=export,
        facts={name: manifest[name] for name in _INHERITED_FACTS if name in manifest},
        recipe=Recipe.model_validate(recipe).model_copy(update={"export": export}) if recipe else None,
        results=bundle.folder,
        multi_label=bundle.multi_label,
    )


def source_of_keras_file(
    path: Path,
    labels: Path,
    export: ExportSpec,
    *,
    name: str | None = None,
    resize: Literal["stretch", "crop", "pad"] = "stretch",
    pixel_range: PixelRange | None = None,
    from_logits: bool = False,
    multi_label: bool = False,
    image_size: ImageSize | None = None,
) -> ExportSource:
    """The source of an export of a model that was trained elsewhere.

    Args:
        path: A `.keras` file.
        labels: A JSON file with a list of class names, in the order of the outputs. For a network with one
            output, a probability or logit, two names: the second is the class it is of.
        export: The export settings.
        name: The model's name; derived from the file name when None.
        resize: How images are resized to the model's input.
        pixel_range: The range of pixels that the model expects.
        from_logits: Whether to add a softmax, or with `multi_label` a sigmoid, to the outputs.
        multi_label: Whether an image may have several labels.
        image_size: The height and width of images, for a network that takes any.

    Raises:
        RequestError: A file is missing or malformed, or the labels do not match the model.
    """
    require_keras_file(path)
    class_names = _read_labels(labels)
    network = run_in_spawned_process(inspect_network, path, image_size)
    require = require_probability_per_class if multi_label else require_one_class_per_image
    require(path, network.activation, network.outputs, from_logits)
    require_labels(class_names, max(network.outputs, 2))
    if network.takes_uint8 and pixel_range not in (None, "0..255"):
        raise RequestError(
            f"`pixel_range` {pixel_range} for a network with uint8 input",
            "0..255, the range of uint8 pixels",
            "Omit it; if the network was trained on floats, save it with a float input.",
        )
    if pixel_range is None and not (network.rescales or network.takes_uint8):
        _log.warning(
            "%s has no layer that rescales pixels, so it receives values from 0 to 255; if it was trained on "
            "another range, set `pixel_range`",
            path,
        )
    return ExportSource(
        model_path=path,
        name=name or re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-_") or "model",
        version=1,
        class_names=class_names,
        image=network.image.model_copy(update={"resize": resize}),
        export=export,
        pixel_range=pixel_range or "0..255",
        from_logits=from_logits,
        multi_label=multi_label,
    )


def _read_labels(path: Path) -> tuple[str, ...]:
    labels: Any = read_json(path)
    if isinstance(labels, dict) and set(labels) == {str(index) for index in range(len(labels))}:
        labels = [labels[str(index)] for index in range(len(labels))]
    if not (isinstance(labels, list) and labels and all(isinstance(name, str) and name for name in labels)):
        raise RequestError(
            f"{path} does not contain a list of labels",
            'a JSON list of class names such as ["cat", "dog"], in the order of the outputs',
            "Correct the file.",
        )
    return tuple(labels)


def with_changes(export: ExportSpec, **changes: object) -> ExportSpec:
    """Export settings with every change that is not None applied."""
    given = {name: value for name, value in changes.items() if value is not None}
    return ExportSpec.model_validate({**export.model_dump(), **given})
