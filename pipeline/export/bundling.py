"""Filling a bundle's folder: the ONNX file, its proof, and all a reader needs to use it."""

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.artifacts import publishing, sha256_of, write_json
from pipeline.config import Recipe
from pipeline.datasets import PreparedDataset
from pipeline.evaluation import BASELINE_FILE, METRICS_FILE, Evaluation
from pipeline.export import (
    LABELS_FILE,
    ONNX_FILE,
    PARITY_FILE,
    PREPROCESSING_FILE,
    README_FILE,
    RECIPE_FILE,
    ModelBundle,
)
from pipeline.export.conversion import INPUT_NAME, OUTPUT_NAME, convert
from pipeline.export.golden import GoldenVectors, read_golden, write_golden
from pipeline.export.metadata import describe_itself
from pipeline.export.parity import compare_with_keras, require_parity
from pipeline.export.readme import HeldOutResults, ReadmeFacts, render_readme
from pipeline.export.standardizing import serialize, standardize
from pipeline.preprocessing import describe_preprocessing
from pipeline.recipes import dump_recipe
from pipeline.training import MODEL_FILE, TrainedModel
from pipeline.training.prediction import predict_images


def export_bundle(
    model: TrainedModel,
    evaluation: Evaluation,
    dataset: PreparedDataset,
    recipe: Recipe,
    run_id: str,
    version: int,
    folder: Path,
) -> ModelBundle:
    """Convert a model, prove that the file equals it, and write the bundle into `folder`.

    Args:
        model: The trained model.
        evaluation: Its results, with Keras's answers on the test split.
        dataset: Whose test split decides over parity.
        recipe: The recipe of the run.
        run_id: The run, for the record.
        version: The number the registry has set aside for it.
        folder: Must not exist yet.

    Raises:
        WorkError: The model cannot be expressed in ONNX.
        GateRefused: The file does not equal the model; nothing is left behind.
    """
    preprocessing = describe_preprocessing(recipe.image)
    converted = convert(model.model_path, recipe.image, recipe.export)
    metadata = {
        **describe_itself(dataset.class_names, preprocessing),
        "dataset_fingerprint": dataset.fingerprint,
        "run": run_id,
        "name": recipe.name,
        "version": str(version),
        "licence": recipe.export.licence,
    }
    documentation = (
        f"{recipe.name}, version {version}: uint8 '{INPUT_NAME}' [batch, height, width, channels] in, "
        f"float32 '{OUTPUT_NAME}' [batch, classes] out. Class names and preprocessing are in the metadata."
    )
    facts: dict[str, object] = {
        "kind": "model-bundle",
        "name": recipe.name,
        "version": version,
        "run_id": run_id,
        "dataset_fingerprint": dataset.fingerprint,
        "seed": recipe.training.seed,
        "recipe": recipe.model_dump(mode="json"),
        "parameters": model.parameters,
        "opset": recipe.export.opset,
        "licence": recipe.export.licence,
    }
    test = dataset.split("test")
    keras_answers = np.load(evaluation.probabilities, allow_pickle=False)
    with publishing(folder, facts) as staging:
        content = serialize(standardize(converted, metadata, documentation))
        (staging / ONNX_FILE).write_bytes(content)
        parity = compare_with_keras(
            staging / ONNX_FILE, test.pixels, keras_answers, recipe.export.batch_sizes
        )
        require_parity(parity, recipe.export)
        _copy_results(staging, model, evaluation)
        write_json(staging / PARITY_FILE, asdict(parity))
        write_json(staging / LABELS_FILE, dataset.class_names)
        write_json(staging / PREPROCESSING_FILE, preprocessing)
        (staging / RECIPE_FILE).write_text(dump_recipe(recipe), encoding="utf-8")
        held_out = dataset.split("validation").pixels
        write_golden(staging, held_out, recipe.image, partial(predict_images, model.model_path))
        _write_test_data(staging, read_golden(staging))
        readme = ReadmeFacts(
            name=recipe.name,
            version=version,
            image=recipe.image,
            class_names=dataset.class_names,
            opset=recipe.export.opset,
            licence=recipe.export.licence,
            results=HeldOutResults(evaluation.accuracy, evaluation.loss, evaluation.images),
            parity=parity,
        )
        (staging / README_FILE).write_text(render_readme(readme), encoding="utf-8")
    return ModelBundle(folder, recipe.name, version, sha256_of(folder / ONNX_FILE))


def _copy_results(folder: Path, model: TrainedModel, evaluation: Evaluation) -> None:
    shutil.copyfile(model.model_path, folder / MODEL_FILE)
    for name in (METRICS_FILE, BASELINE_FILE):
        shutil.copyfile(evaluation.folder / name, folder / name)
    report = evaluation.report_path.relative_to(evaluation.folder)
    (folder / report).parent.mkdir()
    shutil.copyfile(evaluation.report_path, folder / report)


def _write_test_data(folder: Path, golden: GoldenVectors) -> None:
    """The golden vectors in the ONNX model zoo's form, for other teams' test runners."""
    from onnx import numpy_helper

    data = folder / "test_data_set_0"
    data.mkdir()
    for name, array, title in (
        ("input_0.pb", golden.tensors, INPUT_NAME),
        ("output_0.pb", golden.probabilities, OUTPUT_NAME),
    ):
        (data / name).write_bytes(numpy_helper.from_array(array, title).SerializeToString())
