"""Mirroring a retraining run to an MLflow tracking server, if `MLFLOW_TRACKING_URI` is set.

The store stays the source of truth: MLflow gets a copy, after the gate has decided. A server that is down,
slow or refuses costs one warning and a bounded wait, never the run.
"""

import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import METRICS_FILE, ModelBundle
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.extras import install_command
from pixelmill.pipeline.limited_process import Limits, run_limited
from pixelmill.pipeline.training import TrainedModel, read_history

_VARIABLE = "MLFLOW_TRACKING_URI"
_REQUEST_SECONDS = 10
_SECONDS = 600.0
_MEMORY = 4 * 2**30
# Limits of the server.
_MAX_VALUE = 6_000
_MAX_KEY = 250
_PARAMETERS_AT_ONCE = 100
_METRICS_AT_ONCE = 1_000
_logger = logging.getLogger("pixelmill.pipeline.mlflow")

Metric = tuple[str, float, int]
"""A name, a value and the epoch, which is 0 for the results of the finished model."""


@dataclass(frozen=True)
class Mirrored:
    """What is sent to MLflow.

    Attributes:
        name: The model's name, which is also that of the experiment, unless `MLFLOW_EXPERIMENT_NAME` is set.
        version: The version in the store.
        run: The name of the run.
        recipe: The recipe, as JSON.
        metrics: Those of every epoch and of the finished model.
        bundle: The folder of the bundle, which contains the report.
        alias: The alias that the recipe names.
        refusal: Why the gate refused the version; None if it was promoted.
    """

    name: str
    version: int
    run: str
    recipe: dict[str, Any]
    metrics: list[Metric]
    bundle: Path
    alias: str
    refusal: str | None


def mirror_run(
    model: TrainedModel, evaluation: Path, bundle: ModelBundle, recipe: Recipe, run: str, refusal: str | None
) -> None:
    """Mirror a finished retraining run.

    Args:
        model: The trained model.
        evaluation: The folder of its evaluation.
        bundle: The registered version.
        recipe: The recipe of the run.
        run: The name of the run.
        refusal: Why the gate refused the version; None if it was promoted.
    """
    if not os.environ.get(_VARIABLE):
        return
    mirror_to_mlflow(
        Mirrored(
            name=bundle.name,
            version=bundle.version,
            run=run,
            recipe=recipe.model_dump(mode="json"),
            metrics=collect_metrics(model, evaluation),
            bundle=bundle.folder,
            alias=recipe.promotion.alias,
            refusal=refusal,
        )
    )


def mirror_to_mlflow(mirrored: Mirrored, seconds: float = _SECONDS) -> str | None:
    """Copy a run to MLflow, wait for at most `seconds`, and warn once if that does not succeed.

    Returns:
        The warning, or None if the run was mirrored or no server is set.
    """
    address = os.environ.get(_VARIABLE)
    if not address:
        return None
    if find_spec("mlflow") is None:
        return _warn(f"{_VARIABLE} is set, but mlflow is not installed: {install_command('mlflow')}")
    try:
        trouble = run_limited(Limits(seconds, _MEMORY), _send, mirrored, address)
    except Exception as error:  # noqa: BLE001  # A mirror must never fail the run that it shows.
        trouble = str(error)
    return _warn(f"{_describe(address)}: {redact(trouble, address)}") if trouble else None


def collect_metrics(model: TrainedModel, evaluation: Path) -> list[Metric]:
    """The metrics of every epoch, and those of the test images with their 95% intervals.

    Args:
        model: The trained model.
        evaluation: The folder with `metrics.json`.
    """
    epochs = [
        (name, float(value), int(row["epoch"]))
        for row in read_history(model)
        for name, value in row.items()
        if name != "epoch"
    ]
    measured = read_json(evaluation / METRICS_FILE)
    final = [
        *_flatten("test", measured["test"]),
        *_flatten("validation", measured["validation"]),
    ]
    numbers = [(key, float(value), 0) for key, value in final if type(value) in (int, float)]
    return [metric for metric in (*epochs, *numbers) if math.isfinite(metric[1])]


def redact(text: str, address: str) -> str:
    """A text in one line, without the user name and the password of an address."""
    parts = urlsplit(address)
    for secret in sorted({parts.netloc.rpartition("@")[0], parts.password or ""}, key=len, reverse=True):
        for form in (secret, unquote(secret)):
            if form:
                text = text.replace(form, "***")
    return " ".join(text.split())


def _describe(address: str) -> str:
    return f"this run is not in MLflow at {urlsplit(address).hostname or 'the address of ' + _VARIABLE}"


def _warn(trouble: str) -> str:
    _logger.warning("%s", trouble)
    return trouble


def _send(mirrored: Mirrored, address: str) -> str | None:
    """Copy the run, in a process of its own.

    Returns:
        What went wrong, because not every error of MLflow can be passed to another process.
    """
    _set_up(address)
    # Standard output belongs to the command's results.
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        try:
            from mlflow import MlflowClient

            # When it is imported, MLflow sets the level of its logger, which writes to standard error.
            logging.getLogger("mlflow").setLevel(logging.CRITICAL)
            _copy(MlflowClient(), mirrored)
        except Exception as error:  # noqa: BLE001  # MLflow raises exceptions of many types.
            return f"{type(error).__name__}: {error}"
    return None


def _set_up(address: str) -> None:
    """Set the environment of this process before MLflow is imported.

    User name and password are taken out of the address, so that no message of MLflow contains them.
    """
    parts = urlsplit(address)
    if parts.username or parts.password:
        os.environ[_VARIABLE] = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username or "")
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_REQUEST_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)


def _copy(client: Any, mirrored: Mirrored) -> None:
    from mlflow.entities import Metric as MlflowMetric
    from mlflow.entities import Param

    run = client.create_run(
        _experiment(client, os.environ.get("MLFLOW_EXPERIMENT_NAME") or mirrored.name),
        run_name=mirrored.run,
        tags=_tags(mirrored),
    )
    identifier, now = run.info.run_id, run.info.start_time
    parameters = [Param(key[:_MAX_KEY], _text(value)) for key, value in _flatten("", mirrored.recipe)]
    for chunk in _chunks(parameters, _PARAMETERS_AT_ONCE):
        client.log_batch(identifier, params=chunk)
    metrics = [MlflowMetric(name, value, now, epoch) for name, value, epoch in mirrored.metrics]
    for chunk in _chunks(metrics, _METRICS_AT_ONCE):
        client.log_batch(identifier, metrics=chunk)
    client.log_artifacts(identifier, str(mirrored.bundle), "bundle")
    client.set_terminated(identifier, "FINISHED")
    _register(client, mirrored, run)


def _experiment(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        # Another run has created it in the meantime.
        return str(client.get_experiment_by_name(name).experiment_id)


def _register(client: Any, mirrored: Mirrored, run: Any) -> None:
    """Register the bundle as a version of the model, and move the alias to it if it was promoted."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(mirrored.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        mirrored.name,
        f"{run.info.artifact_uri}/bundle",
        run.info.run_id,
        tags=_tags(mirrored),
        await_creation_for=None,
    )
    if mirrored.refusal is None:
        client.set_registered_model_alias(mirrored.name, mirrored.alias, version.version)


def _tags(mirrored: Mirrored) -> dict[str, str]:
    tags = {
        "pixelmill.model": f"{mirrored.name}@{mirrored.version}",
        "pixelmill.state": "promoted" if mirrored.refusal is None else "refused",
    }
    return tags if mirrored.refusal is None else {**tags, "pixelmill.refusal": mirrored.refusal[:_MAX_VALUE]}


def _flatten(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of nested dicts, with their path; an interval `x` becomes `x.low` and `x.high`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(f"{prefix}.{key}" if prefix else str(key), inner)
    elif prefix.endswith("_interval") and isinstance(value, list) and len(value) == 2:
        yield f"{prefix}.low", value[0]
        yield f"{prefix}.high", value[1]
    else:
        yield prefix, value


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:_MAX_VALUE]


def _chunks(values: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
