"""Runs are mirrored to an MLflow server, and a server that is down or silent costs no more than a warning."""

import json
import logging
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pixelmill.flows.mlflow_mirror import Mirrored, mirror_to_mlflow, redact
from pixelmill.pipeline.artifacts import read_json
from tests.conftest import EPOCHS, Run
from tests.flows.conftest import free_port

SERVER = Path(__file__).resolve().parents[2] / ".engines/mlflow/bin/mlflow"
SECRET = "p%40ss-word"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server on loopback with SQLite, in its own environment; `make test-slow` installs it."""
    if not SERVER.is_file():
        pytest.skip("no MLflow server here; run `make .engines/mlflow/installed`")
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(
            [
                *(SERVER, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
                *("--artifacts-destination", str(folder / "artifacts")),
            ],
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/health", running, folder / "log")
        yield address
    finally:
        os.killpg(running.pid, 15)
        running.wait()


def _wait_for(url: str, running: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 200
    while time.monotonic() < end:
        assert running.poll() is None, log.read_text()
        with suppress(OSError), urllib.request.urlopen(url) as response:
            if response.status == 200:
                return
        time.sleep(0.5)
    raise AssertionError(log.read_text())


def ask(server: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{server}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def small(folder: Path) -> Mirrored:
    """A run whose bundle is one file."""
    (folder / "bundle").mkdir()
    (folder / "bundle/model.onnx").write_bytes(b"onnx")
    recipe = {"training": {"epochs": 2}, "model": {"layers": [{"layer": "flatten"}]}}
    return Mirrored("small", 3, "run-1", recipe, [("loss", 0.5, 1)], folder / "bundle", "champion", None)


def test_a_server_that_is_down_costs_one_warning_without_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:{SECRET}@127.0.0.1:{free_port()}")
    with caplog.at_level(logging.DEBUG):
        warning = mirror_to_mlflow(small(tmp_path))
    assert warning is not None
    assert warning.startswith("this run is not in MLflow at 127.0.0.1: MlflowException: ")
    assert [record.levelname for record in caplog.records if record.name.startswith("pixelmill")] == [
        "WARNING"
    ]
    assert not any(word in caplog.text + warning for word in (SECRET, "p@ss-word", "ann:"))


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        warning = mirror_to_mlflow(small(tmp_path), seconds=1)
    assert warning is not None
    assert "it does not finish within 1 s" in warning


def test_nothing_is_sent_without_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert mirror_to_mlflow(small(tmp_path)) is None


def test_credentials_are_removed_in_every_form() -> None:
    text = f"cannot reach http://ann:{SECRET}@host:\n password p@ss-word"
    assert redact(text, f"http://ann:{SECRET}@host") == "cannot reach http://***@host: password ***"


@pytest.mark.slow
def test_a_refused_version_is_registered_and_the_alias_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    promoted = small(tmp_path)
    assert mirror_to_mlflow(promoted) is None
    assert mirror_to_mlflow(replace(promoted, version=4, refusal="accuracy 0.1; expected 0.9")) is None
    model = ask(server, "registered-models/get?name=small")["registered_model"]
    assert model["aliases"] == [{"alias": "champion", "version": "1"}]
    second = ask(server, "model-versions/get?name=small&version=2")["model_version"]
    tags = {tag["key"]: tag["value"] for tag in second["tags"]}
    assert tags["pixelmill.model"] == "small@4"
    assert tags["pixelmill.refusal"] == "accuracy 0.1; expected 0.9"


@pytest.mark.slow
def test_a_retraining_is_mirrored_with_its_metrics_and_its_bundle(
    tmp_path: Path, run: Run, server: str
) -> None:
    address = server.replace("http://", f"http://ann:{SECRET}@")
    arguments = ("--store", tmp_path, "--set", f"training.epochs={EPOCHS}", "--json")
    done = run("retrain", "digits", *arguments, env={"MLFLOW_TRACKING_URI": address})
    assert done.code == 0, done.errors
    assert done.json["state"] == "promoted"
    assert SECRET not in done.errors + done.output
    assert "INFO mlflow" not in done.errors
    model = ask(server, "registered-models/get?name=digits")["registered_model"]
    assert model["aliases"] == [{"alias": "champion", "version": "1"}]
    version = ask(server, "model-versions/get?name=digits&version=1")["model_version"]
    mirrored = ask(server, f"runs/get?run_id={version['run_id']}")["run"]
    parameters = {each["key"]: each["value"] for each in mirrored["data"]["params"]}
    assert parameters["training.epochs"] == str(EPOCHS)
    assert json.loads(parameters["model.layers"])[0]["layer"] == "convolution"
    metrics = {each["key"]: each["value"] for each in mirrored["data"]["metrics"]}
    test = read_json(tmp_path / "models/digits/1/metrics.json")["test"]
    assert metrics["test.accuracy"] == test["accuracy"]
    assert [metrics[f"test.accuracy_interval.{end}"] for end in ("low", "high")] == test["accuracy_interval"]
    history = ask(server, f"metrics/get-history?run_id={version['run_id']}&metric_key=val_loss")["metrics"]
    assert [each["step"] for each in history] == list(range(1, EPOCHS + 1))
    files = ask(server, f"artifacts/list?run_id={version['run_id']}&path=bundle")["files"]
    here = {path.name for path in (tmp_path / "models/digits/1").iterdir()}
    assert {Path(each["path"]).name for each in files} == here
    assert mirrored["info"]["status"] == "FINISHED"
