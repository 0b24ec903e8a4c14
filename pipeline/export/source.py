"""What an export starts from: a trained model and what is known of it."""

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import ExportSpec, ImageSpec, Recipe
from pipeline.datasets import PreparedDataset
from pipeline.evaluation import Evaluation
from pipeline.export.loading import PixelRange
from pipeline.training import TrainedModel


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
