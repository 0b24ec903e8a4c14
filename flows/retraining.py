"""The retraining flow: from a recipe to a promoted version, with one task per stage."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from pixelmill.flows.gate import judge, promote
from pixelmill.flows.mlflow_mirror import mirror_run
from pixelmill.flows.page import show_markdown, show_table
from pixelmill.flows.passwords import reveal
from pixelmill.flows.refusals import (
    refusal_as_state,
    refusal_of,
    require_result,
    skipped_as_state,
    unchanged_as_state,
)
from pixelmill.flows.run_requests import one_run_at_a_time
from pixelmill.flows.supervision import supervised
from pixelmill.flows.training_progress import progress_artifact
from pixelmill.pipeline.artifacts import read_json, scratch_folder
from pixelmill.pipeline.audit import AUDIT_FOLDER, Audit
from pixelmill.pipeline.audit.audit import explain_imbalance, require_unstopped, spec_of, summarize_findings
from pixelmill.pipeline.audit.retraining import audit_retraining
from pixelmill.pipeline.bundles import METRICS_FILE, PARITY_FILE, ModelBundle
from pixelmill.pipeline.config import DatasetSource, Recipe
from pixelmill.pipeline.datasets import PreparedDataset, RawDataset, SplitName
from pixelmill.pipeline.datasets.division import ModelHistory
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.exclusions import Exclusions, read_exclusions
from pixelmill.pipeline.datasets.ledger import ledger_folder
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import DownloadError, NoSourceError, PixelmillError
from pixelmill.pipeline.evaluation import Evaluation
from pixelmill.pipeline.evaluation.cross_validation import TRAINING_FILE, predict_training_images
from pixelmill.pipeline.evaluation.evaluate import evaluate_model
from pixelmill.pipeline.evaluation.predict import predict_test_images
from pixelmill.pipeline.evaluation.summary import (
    describe_accuracy,
    describe_balance,
    summarize_evaluation,
    tabulate_classes,
)
from pixelmill.pipeline.export.exporter import export_proven
from pixelmill.pipeline.export.held_out import from_dataset
from pixelmill.pipeline.export.source import source_of_run
from pixelmill.pipeline.layers import summarize_layers
from pixelmill.pipeline.processes import run_in_spawned_process, sharing_process
from pixelmill.pipeline.promotion import Promotion
from pixelmill.pipeline.promotion.unchanged import Unchanged, find_unchanged
from pixelmill.pipeline.readiness import check_readiness
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.registry import newest_classes, register_bundle, release_version, reserve_version
from pixelmill.pipeline.run_lock import AnotherRunAtWork, RunLock, Skipped
from pixelmill.pipeline.runs import begin_run
from pixelmill.pipeline.starting_weights import (
    find_pretrained_weights,
    find_starting_weights,
    names_weights_file,
)
from pixelmill.pipeline.storage import Location, parse_location, workspace
from pixelmill.pipeline.training import VALIDATION_FILE, TrainedModel, read_history
from pixelmill.pipeline.training.checkpoints import checkpoint_path, completed_epochs, remove_checkpoint
from pixelmill.pipeline.training.pretrained import PretrainedWeights
from pixelmill.pipeline.training.trainer import train_model
from pixelmill.pipeline.training.warm_start import StartingWeights


@flow(name="retrain", flow_run_name="retrain {recipe}", validate_parameters=True)
@refusal_as_state
@supervised
def retrain(
    recipe: str,
    overrides: tuple[str, ...] = (),
    store: str = "artifacts",
    verify_data: bool = False,
    retrain_anyway: bool = False,
    max_hours: float = 0.0,
) -> Promotion | Unchanged | Skipped:
    """Retrain a classifier; publish it if it passes the parity check, promote it if it passes the gate.

    Nothing is trained if another run of the same model is at work, or if the alias already points to a
    version that was trained on the same data with the same recipe and packages.

    Args:
        recipe: The name of a built-in recipe, such as mnist, or the path of a YAML file.
        overrides: Fields of the recipe to override, such as training.epochs=3.
        store: The folder or address of the artifacts root.
        verify_data: Read files and tensors again although their sizes and times have not changed.
        retrain_anyway: Train although data, recipe and packages are unchanged.
        max_hours: The longest time that the run may take, in hours; 0 for no limit.
    """
    checked = load_recipe(recipe, reveal(overrides))
    models = parse_location(store)
    check_readiness(checked, models)
    try:
        with one_run_at_a_time(RunLock(workspace(models), checked.name)):
            return run_stages(checked, models, verify_data, retrain_anyway)
    except AnotherRunAtWork as error:
        return skipped_as_state(error)


def run_stages(
    recipe: Recipe, models: Location, verify_data: bool, retrain_anyway: bool
) -> Promotion | Unchanged:
    """The stages of a retraining, from the download to the promotion."""
    start = find_starting_weights(recipe, models)
    work = workspace(models)
    run = begin_run(models, recipe.name)
    raw = download(recipe.dataset, work, read_exclusions(models), verify_data)
    if not retrain_anyway and (same := find_unchanged(models, recipe, raw.fingerprint)):
        return unchanged_as_state(same)
    history = ModelHistory(ledger_folder(models, recipe.name), newest_classes(models, recipe.name))
    dataset = require_result(prepare(raw, recipe, work, history, verify_data))
    require_result(audit(raw, dataset, recipe, work, run))
    pretrained = require_result(fetch_weights(recipe, work)) if names_weights_file(recipe) else None
    checkpoint = checkpoint_path(dataset, recipe, work, start, pretrained)
    model = require_result(train(dataset, recipe, run, checkpoint, start, pretrained))
    with sharing_process():
        evaluation = require_result(evaluate(model, dataset, recipe, run))
        require_result(audit_labels(model, evaluation, raw, dataset, recipe, work, run))
        bundle = require_result(export(model, evaluation, dataset, recipe, run, models))
    try:
        judgement = require_result(judge(bundle, raw, dataset, recipe, run, models))
    except PixelmillError:
        # The training is not lost: the next run judges this version. Without it, the next run resumes.
        require_result(register(bundle, models))
        remove_checkpoint(checkpoint)
        raise
    registered = require_result(register(bundle, models))
    # Up to here, the same command resumes from the checkpoint; afterwards, it trains again.
    remove_checkpoint(checkpoint)
    promoted = promote(registered, judgement, dataset, recipe, run, models)
    mirror_run(model, evaluation.folder, registered, recipe, run.name, refusal_of(promoted))
    return require_result(promoted)


def is_network_error(task: Any, run: Any, state: Any) -> bool:
    """Whether to retry a failed task: the data has sources, but none of them responded."""
    try:
        state.result()
    except DownloadError as error:
        return not isinstance(error, NoSourceError)
    except Exception:  # noqa: BLE001  # Any other error would occur again.
        return False
    return False


# A server may be out of reach for a moment.
DOWNLOADING: Any = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": exponential_backoff(5),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_network_error,
}


@task(name="download", **DOWNLOADING)
def download(source: DatasetSource, store: Path, exclusions: Exclusions, verify_data: bool) -> RawDataset:
    """Download and verify the data, and list its images with the hashes of their contents."""
    raw = download_dataset(source, store, exclusions, verify_data=verify_data)
    get_run_logger().info("%s from %s", raw.source, raw.provenance)
    if raw.excluded:
        get_run_logger().info("%d images are left out: they are on the store's exclusion list", raw.excluded)
    return raw


@task(name="weights", **DOWNLOADING)
def fetch_weights(recipe: Recipe, store: Path) -> PretrainedWeights | None:
    """Find or download the file of the weights that the application of the recipe starts from."""
    found = find_pretrained_weights(recipe, store)
    if found is not None:
        get_run_logger().info("weights %s (SHA-256 %s)", printable(found.source), found.sha256)
    return found


@task(name="prepare", cache_policy=NO_CACHE)
@refusal_as_state
def prepare(
    raw: RawDataset, recipe: Recipe, store: Path, history: ModelHistory, verify_data: bool
) -> PreparedDataset:
    """Convert new images to tensors, and split all into training, validation and test sets."""
    dataset = prepare_dataset(raw, recipe, store, history, verify_data=verify_data)
    # A recipe may specify the number of outputs, which is checked now that the classes are known.
    summarize_layers(recipe.model, recipe.image, len(dataset.class_names))
    counts = ", ".join(f"{count:,} {name}" for name, count in dataset.counts.items())
    get_run_logger().info("%s: %s images", dataset.folder, counts)
    return dataset


@task(name="audit", cache_policy=NO_CACHE)
@refusal_as_state
def audit(raw: RawDataset, dataset: PreparedDataset, recipe: Recipe, store: Path, run: Path) -> Audit:
    """Look for what is wrong with the images, before they are trained on."""
    found = audit_retraining(raw, dataset, recipe, store, run / AUDIT_FOLDER)
    for line in (summarize_findings(found, run / AUDIT_FOLDER), explain_imbalance(found)):
        if line:
            get_run_logger().warning(line)
    require_unstopped(found, run / AUDIT_FOLDER)
    return found


@task(name="train", cache_policy=NO_CACHE)
@refusal_as_state
def train(
    dataset: PreparedDataset,
    recipe: Recipe,
    run: Path,
    checkpoint: Path,
    start: StartingWeights | None,
    pretrained: PretrainedWeights | None,
) -> TrainedModel:
    """Train the network in a separate process."""
    if done := completed_epochs(checkpoint):
        head = recipe.training.head
        epochs = recipe.training.epochs + (head.epochs if head else 0)
        get_run_logger().info("resuming after epoch %d of %d: %s", done, epochs, checkpoint)
    key = recipe.name.replace("_", "-")
    with progress_artifact(f"{key}-training", f"Training {recipe.name}") as report, sharing_process():
        model = run_in_spawned_process(
            train_model, dataset, recipe, run / "training", checkpoint, report, start, pretrained
        )
        if spec_of(recipe.dataset).label_error != "ignore":
            run_in_spawned_process(predict_training_images, model, dataset, recipe.training, run)
    if recipe.training.weights:
        get_run_logger().info("%s", model.taken or f"random weights: {recipe.name} has no version yet")
    show_table(
        key=f"{key}-history",
        table=read_history(model),
        description=f"{model.epochs} epochs, validation accuracy {model.validation_accuracy:.4f}",
    )
    get_run_logger().info(
        "%d epochs in %.0f s on %s, validation accuracy %.4f",
        model.epochs,
        model.seconds,
        model.device,
        model.validation_accuracy,
    )
    if model.normalization and model.normalization.warning:
        get_run_logger().warning(model.normalization.warning)
    return model


@task(name="evaluate", cache_policy=NO_CACHE)
@refusal_as_state
def evaluate(model: TrainedModel, dataset: PreparedDataset, recipe: Recipe, run: Path) -> Evaluation:
    """Predict and evaluate the test images, once."""
    predicted = run_in_spawned_process(predict_test_images, model, dataset, recipe, run)
    if predicted.warning:
        get_run_logger().warning(predicted.warning)
    evaluation = evaluate_model(model, dataset, predicted, recipe, run / "evaluation")
    show_table(
        key=f"{recipe.name.replace('_', '-')}-metrics",
        table=tabulate_classes(evaluation),
        description=f"Test accuracy {evaluation.accuracy:.4f}, loss {evaluation.loss:.4f}",
    )
    show_markdown(
        key=f"{recipe.name.replace('_', '-')}-report",
        markdown=summarize_evaluation(evaluation),
        description=f"Evaluation of {recipe.name}",
    )
    test = read_json(evaluation.folder / METRICS_FILE)["test"]
    get_run_logger().info("test accuracy %s; balanced %s", describe_accuracy(test), describe_balance(test))
    return evaluation


@task(name="audit labels", cache_policy=NO_CACHE)
@refusal_as_state
def audit_labels(
    model: TrainedModel,
    evaluation: Evaluation,
    raw: RawDataset,
    dataset: PreparedDataset,
    recipe: Recipe,
    store: Path,
    run: Path,
) -> Audit:
    """Look for wrong labels, by predictions that do not depend on them."""
    predictions: dict[SplitName, Path] = {
        "validation": model.folder / VALIDATION_FILE,
        "test": evaluation.probabilities,
    }
    if spec_of(recipe.dataset).label_error != "ignore":
        predictions["train"] = run / TRAINING_FILE
    found = audit_retraining(raw, dataset, recipe, store, run / AUDIT_FOLDER, predictions)
    if line := summarize_findings(found, run / AUDIT_FOLDER, ["label_error"]):
        get_run_logger().warning(line)
    require_unstopped(found, run / AUDIT_FOLDER)
    return found


@task(name="export", cache_policy=NO_CACHE)
@refusal_as_state
def export(
    model: TrainedModel,
    evaluation: Evaluation,
    dataset: PreparedDataset,
    recipe: Recipe,
    run: Path,
    store: Location,
) -> ModelBundle:
    """Write the ONNX file and check its parity with Keras on every test image file."""
    version = reserve_version(store, recipe.name)
    source = source_of_run(model, evaluation, dataset, recipe, run.name, version)
    try:
        with scratch_folder("held-out", run) as files:
            held_out = from_dataset(dataset, recipe.image, files)
            bundle = export_proven(source, held_out, run / "bundle", record=run / PARITY_FILE)
    except BaseException:
        release_version(store, recipe.name, version)
        raise
    get_run_logger().info("%s matches the Keras model", bundle.onnx_path)
    return bundle


@task(name="register", cache_policy=NO_CACHE)
@refusal_as_state
def register(bundle: ModelBundle, store: Location) -> ModelBundle:
    """Publish the bundle under its version."""
    registered = register_bundle(store, bundle)
    get_run_logger().info("%s@%d in %s", bundle.name, bundle.version, registered.address or registered.folder)
    return registered
