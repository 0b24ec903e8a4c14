"""The retraining flow on a real Prefect server, observed through its API and its UI."""

import gzip
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from pixelmill.pipeline.datasets.mnist import FILES
from pixelmill.pipeline.registry import list_models, show_model
from tests.conftest import PIXELMILL, CommandResult, Run, on_small_disk, start_interruptible, write_images
from tests.flows.conftest import PrefectServer, ask, newest_run
from tests.flows.test_refusals import logged, states
from tests.servers import FileServer, serving

pytestmark = pytest.mark.xdist_group("prefect-server")
STAGES = {"download", "prepare", "train", "evaluate", "export", "judge", "register", "promote"}


@pytest.fixture(scope="module")
def retrained(server: PrefectServer, run: Run, tmp_path_factory: pytest.TempPathFactory) -> CommandResult:
    """`pixelmill retrain digits` with the server and a separate store."""
    store = tmp_path_factory.mktemp("store")
    result = run(
        "retrain",
        "digits",
        "--store",
        store,
        "--set",
        "training.epochs=4",
        "--set",
        "promotion.min_accuracy=0",
        "--json",
        env=server.environment,
    )
    assert result.code == 0, result.errors
    return result


@pytest.fixture(scope="module")
def flow_run(server: PrefectServer, retrained: CommandResult) -> Any:
    (found,) = ask(server, "flow_runs/filter", flow_runs={"name": {"any_": ["retrain digits"]}})
    return found


def test_the_command_prints_the_same_as_models_show(retrained: CommandResult, run: Run) -> None:
    shown = retrained.json
    store = Path(shown["folder"]).parents[2]
    names = ("state", "gate", "compared_on", "permanent_checks", "preview")
    of_run = {name: shown.pop(name) for name in names}
    assert run("models", "show", "digits@champion", "--store", store, "--json").json == shown
    assert of_run["state"] == "promoted"
    assert [(row["bar"], row["verdict"]) for row in of_run["gate"]] == [("balanced_accuracy", "passed")]
    assert of_run["compared_on"]["images"] == shown["metrics"]["test"]["images"]
    assert shown["metrics"]["training"]["epochs"] == 4
    for stage in STAGES:
        assert any(line.startswith(stage) for line in retrained.errors.splitlines()), stage
    assert "epoch 4/4" in retrained.errors or "of 5,248 images" in retrained.errors


def test_every_stage_is_a_task_of_the_run(server: PrefectServer, flow_run: Any) -> None:
    assert flow_run["state"]["type"] == "COMPLETED"
    tasks = ask(server, "task_runs/filter", flow_runs={"id": {"any_": [flow_run["id"]]}})
    assert {task["name"].rsplit("-", 1)[0] for task in tasks} == STAGES | {"audit", "audit labels"}
    assert {task["state"]["type"] for task in tasks} == {"COMPLETED"}
    retries = {task["name"].rsplit("-", 1)[0]: task["empirical_policy"]["retries"] for task in tasks}
    assert {name for name, count in retries.items() if count} == {"download"}


def test_the_parameters_of_the_flow_are_flat(server: PrefectServer, flow_run: Any) -> None:
    assert flow_run["parameters"]["recipe"] == "digits"
    assert "training.epochs=4" in flow_run["parameters"]["overrides"]
    from pixelmill.flows.retraining import retrain

    properties = retrain.parameters.model_dump()["properties"]
    kinds = {name: kind["type"] for name, kind in properties.items()}
    assert kinds == {
        "recipe": "string",
        "overrides": "array",
        "store": "string",
        "verify_data": "boolean",
        "retrain_anyway": "boolean",
        "max_hours": "number",
    }
    assert all(kind["description"] for kind in properties.values())


def test_metrics_and_report_are_artifacts_of_the_run(
    server: PrefectServer, flow_run: Any, retrained: CommandResult
) -> None:
    artifacts = ask(server, "artifacts/filter", artifacts={"flow_run_id": {"any_": [flow_run["id"]]}})
    by_key = {artifact["key"]: artifact for artifact in artifacts if artifact["key"]}
    assert set(by_key) == {f"digits-{name}" for name in ("training", "history", "metrics", "report", "gate")}
    assert by_key["digits-training"]["type"] == "progress"
    assert by_key["digits-training"]["data"] == 100
    assert "epoch 4/4, step 41/41, loss " in by_key["digits-training"]["description"]
    assert [row["epoch"] for row in json.loads(by_key["digits-history"]["data"])] == [1, 2, 3, 4]
    assert len(json.loads(by_key["digits-metrics"]["data"])) == 10
    accuracy = retrained.json["metrics"]["test"]["accuracy"]
    page = by_key["digits-report"]["data"]
    assert f"| accuracy | {accuracy:.4f} |" in page
    for row in ("95% interval of the accuracy", "balanced accuracy", "share of the largest class"):
        assert f"| {row}" in page


def test_the_ui_of_prefect_shows_the_stages_and_the_artifacts(
    server: PrefectServer, flow_run: Any, browser: Browser
) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{server.url}/runs/flow-run/{flow_run['id']}")
    for stage in sorted(STAGES):
        page.get_by_text(stage, exact=False).first.wait_for(timeout=60_000)
    page.goto(f"{server.url}/artifacts")
    for key in ("digits-metrics", "digits-report"):
        page.get_by_text(key).first.wait_for(timeout=60_000)
    if "PIXELMILL_SCREENSHOTS" in os.environ:
        page.screenshot(path=f"{os.environ['PIXELMILL_SCREENSHOTS']}/prefect-artifacts.png")
        page.goto(f"{server.url}/runs/flow-run/{flow_run['id']}")
        page.get_by_text("Completed").first.wait_for(timeout=60_000)
        page.wait_for_timeout(3000)
        page.screenshot(path=f"{os.environ['PIXELMILL_SCREENSHOTS']}/prefect-run.png")
    page.close()


def test_a_corrupt_download_is_one_line_and_loses_nothing(
    server: PrefectServer, run: Run, tmp_path: Path
) -> None:
    files = {f"{file.name}.gz": gzip.compress(b"not what it should be") for file in FILES}
    with serving(FileServer(files)) as mirror:
        result = run(
            "retrain",
            "mnist",
            "--store",
            tmp_path / "store",
            "--set",
            f"dataset.mirrors=[{mirror.url}]",
            "--set",
            "dataset.package_index=false",
            env=server.environment,
        )
        # Network errors are retried, so the first file is requested each time.
        assert [name for name, _ in mirror.requests] == ["train-images-idx3-ubyte.gz"] * 3
    assert result.code == 1
    assert result.last_error.startswith("pixelmill: no source provided train-images-idx3-ubyte")
    assert "SHA-256" in result.last_error
    assert "Traceback" not in result.errors
    assert list_models(tmp_path / "store") == []


def test_a_class_without_images_is_one_line(server: PrefectServer, run: Run, tmp_path: Path) -> None:
    (tmp_path / "pets/cat").mkdir(parents=True)
    (tmp_path / "pets/dog").mkdir()
    result = run(
        "retrain",
        "folder",
        "--set",
        f"dataset.path={tmp_path / 'pets'}",
        "--store",
        tmp_path / "store",
        env=server.environment,
    )
    assert result.code == 2
    assert "class 'cat' has no images" in result.last_error
    assert "Traceback" not in result.errors


IMBALANCED = {"cat": 1_000, "dog": 100, "fish": 12}


def test_a_model_that_predicts_only_the_largest_class_is_refused(
    server: PrefectServer, run: Run, tmp_path: Path
) -> None:
    # The images do not differ between the classes, so the model only learns which class is the largest.
    for seed, (name, count) in enumerate(IMBALANCED.items()):
        write_images(tmp_path / "pets" / name, count, seed)
    recipe = {
        "name": "pets",
        "dataset": {"source": "folder", "path": str(tmp_path / "pets")},
        "image": {"height": 8, "width": 8, "channels": 1},
        "model": {
            "layers": [
                {"layer": "convolution", "filters": 2, "kernel_size": 3},
                {"layer": "batch_normalization"},
                {"layer": "global_average_pooling"},
                {"layer": "dense", "units": "classes"},
                {"layer": "softmax"},
            ]
        },
        "training": {"epochs": 2, "learning_rate": {"peak": 0.1}},
    }
    (tmp_path / "pets.yaml").write_text(json.dumps(recipe))
    store = tmp_path / "store"
    result = run("retrain", tmp_path / "pets.yaml", "--store", store, "--quiet", env=server.environment)
    assert result.code == 3, result.errors
    assert result.last_error.startswith(
        "pixelmill: pets@1 predicts cat for every test image, which is a balanced accuracy of 0.3333"
    )
    # Warnings about the images are shown even with `--quiet`, but no results of stages.
    shown = ("pixelmill", "Traceback", "evaluate", "export", "register")
    assert [line for line in result.errors.splitlines() if line.startswith(shown)] == [result.last_error]
    _require_refused(server, result.last_error)
    model = show_model(store, "pets@1")
    assert model.aliases == ()
    test = model.metrics["test"]
    assert test["accuracy"] == test["largest_class"]["share"] == pytest.approx(200 / 222)
    assert test["never_predicted"] == ["dog", "fish"]
    described = run("models", "show", "pets@1", "--store", store).output
    assert "balanced       0.3333 (95% interval " in described
    assert "cat, the largest class, is 90.1% of the images; never predicted: dog, fish" in described


def _require_refused(server: PrefectServer, error: str) -> None:
    """Check that the newest run ended in the state `Refused`, at one of its stages, without a traceback."""
    flow_run = newest_run(server, "retrain")
    assert (flow_run["state"]["type"], flow_run["state"]["name"]) == ("FAILED", "Refused")
    assert flow_run["state"]["message"] == error.removeprefix("pixelmill: ")
    ended = list(states(server, flow_run).values())
    ended.remove(("FAILED", "Refused"))
    assert set(ended) == {("COMPLETED", "Completed")}
    log = logged(server, flow_run)
    assert any("test accuracy" in line for line in log)
    assert not [line for line in log if "Traceback" in line]


def test_a_disk_that_fills_up_during_preparation_is_one_line(
    server: PrefectServer, environment: dict[str, str], tmp_path: Path
) -> None:
    command = [str(PIXELMILL), "retrain", "digits", "--store", f"{tmp_path}/disk/store"]
    done = on_small_disk(command, tmp_path / "disk", "64k", {**environment, **server.environment})
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("pixelmill: ")
    assert "No space left on device" in last


@pytest.mark.parametrize(
    ("number", "with_server"),
    [
        pytest.param(signal.SIGINT, True, id="Ctrl-C, with a server"),
        pytest.param(signal.SIGINT, False, id="Ctrl-C, without", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, id="SIGTERM, with a server", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, False, id="SIGTERM, without"),
    ],
)
def test_a_terminated_run_ends_immediately(
    server: PrefectServer,
    environment: dict[str, str],
    tmp_path: Path,
    with_server: bool,
    number: int,
) -> None:
    command = [str(PIXELMILL), "retrain", "digits", "--store", str(tmp_path / "store")]
    # Long enough to be interrupted on any machine.
    command += ["--set", "training.epochs=10000"]
    settings = {**environment, **(server.environment if with_server else {})}
    process = start_interruptible(command, settings)
    seen = ""
    assert process.stderr is not None
    for line in process.stderr:
        seen += line
        if line.lstrip().startswith("train:"):
            break
    # A terminal signals the whole process group; a service manager may signal only the command.
    tell = os.killpg if number == signal.SIGINT else os.kill
    tell(process.pid, number)
    # Reading ends once no process has the pipe open, so no process outlives the interrupt.
    seen += process.stderr.read()
    assert process.wait() == 128 + number
    assert "Traceback" not in seen
    assert seen.strip().splitlines()[-1].startswith("pixelmill: interrupted; ")
    assert list_models(tmp_path / "store") == []
    if with_server:
        run = newest_run(server, "retrain")
        assert run["state"]["type"] in ("CRASHED", "CANCELLED", "FAILED")


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_last_epoch(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["retrain", "digits", "--store", str(tmp_path), "--set", "training.epochs=40"]
    process = start_interruptible([str(PIXELMILL), *arguments], environment)
    assert process.stderr is not None
    # The accuracy is reported once the epoch is complete and its checkpoint is written.
    assert any("validation accuracy" in line for line in process.stderr)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    result = run(*arguments, "--json")
    assert result.code == 0, result.errors
    assert "resuming after epoch " in result.errors
    assert result.json["metrics"]["training"]["epochs"] == 40
    assert not list(tmp_path.glob("checkpoints/*.npz"))


def test_a_missing_gpu_is_reported_by_the_training_process(
    server: PrefectServer, run: Run, tmp_path: Path
) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU here")
    result = run(
        "retrain",
        "digits",
        "--set",
        "training.device=gpu",
        "--store",
        tmp_path / "store",
        env=server.environment,
    )
    assert result.code == 2
    assert "there is no GPU" in result.last_error
    assert "Traceback" not in result.errors
