"""What an export starts from: a trained model and what is known of it."""

import re
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import Any, Literal

from pixelmill.pipeline.artifacts import MANIFEST, read_json, read_manifest, verify_files
from pixelmill.pipeline.bundles import MODEL_FILE, ModelBundle, read_bundle_manifest
from pixelmill.pipeline.config import ExportSpec, ImageSpec, Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import PixelmillError, RequestError
from pixelmill.pipeline.evaluation import Evaluation
from pixelmill.pipeline.export.loading import PixelRange, inspect_network, require_keras_file, require_labels
from pixelmill.pipeline.export.outputs import require_one_class_per_image
from pixelmill.pipeline.export.runtimes import OnnxVersion, choose_version
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.training import TrainedModel


@dataclass(frozen=True)
class ExportSource:
    """A trained model, and what its bundle is to say of it.

    Attributes:
        model_path: A Keras file.
        name: The model's.
        version: Its number, from 1.
        class_names: In the order of the outputs.
        image: The tensor that image files become.
        export: How to write the ONNX file, and how equal it has to be.
        facts: What the bundle's manifest records beside files and versions: run, data, recipe, seed.
        recipe: What it was trained by, if pixelmill trained it.
        results: The folder of its evaluation, whose metrics, baseline and report go into the bundle.
        pixel_range: What the model expects of pixels; one that pixelmill trained takes them as they are.
        from_logits: Whether the outputs still have to go through a softmax.
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
    pixel_range: PixelRange = "0..255"
    from_logits: bool = False


def source_of_run(
    model: TrainedModel,
    evaluation: Evaluation,
    dataset: PreparedDataset,
    recipe: Recipe,
    run_id: str,
    version: int,
) -> ExportSource:
    """What the stages of a retraining run hand on to the export."""
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
        },
        recipe=recipe,
        results=evaluation.folder,
    )


_log = getLogger(__name__)
_CARRIED_ON = ("run_id", "dataset_fingerprint", "seed", "recipe")


def export_spec_of(bundle: ModelBundle) -> ExportSpec:
    """How a bundle was exported."""
    manifest = read_bundle_manifest(bundle.folder)
    known = manifest.get("export") or manifest.get("recipe", {}).get("export", {})
    return ExportSpec.model_validate(known)


def is_written_for(bundle: ModelBundle, export: ExportSpec) -> bool:
    """Whether a bundle's ONNX file is what an export with these settings would give."""
    manifest = read_bundle_manifest(bundle.folder)
    before = export_spec_of(bundle)
    found = OnnxVersion(manifest["opset"], manifest.get("ir_version", choose_version(before).ir_version))
    return found == choose_version(export)


def source_of_bundle(bundle: ModelBundle, export: ExportSpec) -> ExportSource:
    """The Keras model in a bundle, to export it once more in another way.

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
        facts={name: manifest[name] for name in _CARRIED_ON if name in manifest},
        recipe=Recipe.model_validate(recipe).model_copy(update={"export": export}) if recipe else None,
        results=bundle.folder,
    )


def find_dataset(store: Path, bundle: ModelBundle) -> PreparedDataset | None:
    """The prepared dataset that a bundle's model was trained with, if a store on this machine has it."""
    manifest = read_bundle_manifest(bundle.folder)
    for folder in sorted((store / "datasets").glob(f"*/{MANIFEST}")):
        try:
            found = read_manifest(folder.parent)
        except PixelmillError:
            continue
        same_data = found.get("fingerprint") == manifest.get("dataset_fingerprint")
        if same_data and found.get("image") == bundle.image_spec().model_dump():
            return PreparedDataset.from_manifest(folder.parent, verify_files(folder.parent))
    return None


def source_of_keras_file(
    path: Path,
    labels: Path,
    export: ExportSpec,
    *,
    name: str | None = None,
    resize: Literal["stretch", "crop", "pad"] = "stretch",
    pixel_range: PixelRange | None = None,
    from_logits: bool = False,
) -> ExportSource:
    """A model that was trained elsewhere.

    Args:
        path: A `.keras` file.
        labels: A JSON file with a list of class names, in the order of the outputs.
        export: How to write the ONNX file.
        name: The bundle's; the file's own when None.
        resize: How images of another shape are made to fit.
        pixel_range: What the model expects of pixels.
        from_logits: Whether its outputs still have to go through a softmax.

    Raises:
        RequestError: One of the files is not what it should be, or the two do not fit.
    """
    require_keras_file(path)
    class_names = _read_labels(labels)
    network = run_in_spawned_process(inspect_network, path)
    require_one_class_per_image(path, network.activation, network.outputs, from_logits)
    require_labels(class_names, network.outputs)
    if network.takes_bytes and pixel_range not in (None, "0..255"):
        raise RequestError(
            f"`pixel_range` {pixel_range} for a network that takes uint8",
            "no range but 0..255, which is all that uint8 pixels have",
            "Leave it out; if the network was given floats in training, save it with an input of floats.",
        )
    if pixel_range is None and not (network.rescales or network.takes_bytes):
        _log.warning(
            "%s has no layer that rescales pixels, and gets them as 0 to 255; if it was trained on "
            "another range, say so with `pixel_range`",
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
    )


def _read_labels(path: Path) -> tuple[str, ...]:
    labels: Any = read_json(path)
    if isinstance(labels, dict) and set(labels) == {str(index) for index in range(len(labels))}:
        labels = [labels[str(index)] for index in range(len(labels))]
    if not (isinstance(labels, list) and labels and all(isinstance(name, str) and name for name in labels)):
        raise RequestError(
            f"{path} holds no list of labels",
            'a JSON list of class names such as ["cat", "dog"], in the order of the outputs',
            "Correct the file.",
        )
    return tuple(labels)


def with_changes(export: ExportSpec, **changes: object) -> ExportSpec:
    """Settings of an export with other values where they are given."""
    given = {name: value for name, value in changes.items() if value is not None}
    return ExportSpec.model_validate({**export.model_dump(), **given})
