"""The templates in `deploy/`: checked by the programs that read them, and their install steps run."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pixelmill.flows.server_settings import SERVER_DEFAULTS, WORKER_DEFAULTS
from tests.conftest import CommandResult
from tests.flows.commands.test_up import check_a_scheduled_run
from tests.flows.conftest import PrefectServer, prefect_server
from tests.test_installation import ROOT, Build, build, builder, checkout, sdist, wheel

__all__ = ["build", "builder", "checkout", "sdist", "wheel"]  # Fixtures.
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
CONTAINERFILES = sorted((DEPLOY / "containers").glob("Containerfile.*"))
KUBERNETES = "1.34"


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here; install the packages in .ci/apt-packages.txt")
    assert len(UNITS) == 2
    for unit in UNITS:
        # It checks that the programs exist.
        text = unit.read_text().replace("/opt/pixelmill/bin", str(Path(sys.executable).parent))
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_settings_of_the_units_are_those_of_up() -> None:
    lines = (DEPLOY / "systemd/pixelmill.env").read_text().splitlines()
    pairs = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert {**SERVER_DEFAULTS, **WORKER_DEFAULTS}.items() <= pairs.items()
    assert "PASSWORD" not in str(pairs)


def test_the_composition_is_valid_and_has_no_secrets(tmp_path: Path) -> None:
    file = DEPLOY / "containers/compose.yaml"
    # The checker knows no merge keys, which PyYAML resolves.
    content = yaml.safe_load(file.read_text())
    (tmp_path / "compose.json").write_text(json.dumps(content))
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    command: list[str | Path] = [*check, tmp_path / "compose.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for name in re.findall(r"(\w*(?:PASSWORD|AUTH)\w*): (.*)", file.read_text()):
        assert name[1].startswith("${"), name
    published = [port for service in content["services"].values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.fixture(scope="module")
def pool() -> Any:
    return json.loads((DEPLOY / "kubernetes/work-pool.json").read_text())


@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_a_run_of_the_kubernetes_pool_requests_gpus(pool: Any, gpus: int) -> None:
    from prefect.utilities.templating import apply_values

    defaults = {
        name: field["default"]
        for name, field in pool["variables"]["properties"].items()
        if "default" in field
    }
    # As the worker fills it in: an environment, labels and a command.
    values = {
        **defaults,
        "gpus": gpus,
        "env": [{"name": "A", "value": "b"}],
        "name": "run",
        "command": ["prefect"],
    }
    job: Any = apply_values(pool["job_configuration"]["job_manifest"], {**values, "labels": {"a": "b"}})
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
    assert container["resources"]["requests"] == {"cpu": "4", "memory": "8Gi"}


@pytest.mark.slow
@pytest.mark.xdist_group("prefect-server")
def test_prefect_accepts_the_kubernetes_pool(tmp_path: Path) -> None:
    with prefect_server(tmp_path) as server:
        create = ["work-pool", "create", "gpu", "--type", "kubernetes"]
        create += ["--base-job-template", str(DEPLOY / "kubernetes/work-pool.json")]
        done = run_prefect(server, create)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Created work pool 'gpu'" in done.stdout


def run_prefect(server: PrefectServer, words: list[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "prefect", "--no-prompt", *words]
    environment = {**os.environ, **server.environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def install_step(file: Path, arguments: dict[str, str]) -> str:
    """The `pip install` of a container file, with the values of its build arguments."""
    text = re.sub(r"\\\n\s*", "", file.read_text())
    (step,) = re.findall(r"^RUN (pip install .*?) && ", text, re.MULTILINE)
    declared = dict(re.findall(r"^ARG (\w+)=(.*)$", text, re.MULTILINE))
    return re.sub(r"\$\{(\w+)\}", lambda found: {**declared, **arguments}[found[1]], step)


def run_install_step(
    file: Path, wheel: Path, folder: Path, arguments: dict[str, str] | None = None, more: str = ""
) -> Path:
    """Run it in an empty environment; returns the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    context = folder / "install"
    context.mkdir()
    shutil.copy(wheel, context)
    shutil.copy(DEPLOY / "constraints.txt", context)
    step = install_step(file, arguments or {}).replace("/tmp/install", str(context))
    step = step.replace("pip install --no-cache-dir", f"pip install {more}")
    environment = {**os.environ, "PATH": f"{folder / 'venv/bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", step], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "venv/bin"


def test_the_install_steps_use_the_constraints() -> None:
    assert [file.suffix for file in CONTAINERFILES] == [".scoring", ".training"]
    for file in CONTAINERFILES:
        assert "--constraint /tmp/install/constraints.txt" in install_step(file, {})
    assert "[flows,train-gpu,s3]" in install_step(CONTAINERFILES[1], {"TRAIN": "train-gpu"})


@pytest.mark.slow
@pytest.mark.xdist_group("installation")
def test_the_install_step_of_the_scoring_image_runs(wheel: Path, tmp_path: Path) -> None:
    programs = run_install_step(CONTAINERFILES[0], wheel, tmp_path)
    done = subprocess.run([programs / "pixelmill", "models"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (programs / "prefect").exists()


@pytest.mark.slow
@pytest.mark.xdist_group("installation")
@pytest.mark.timeout(1800)
def test_the_install_step_of_the_training_image_runs_and_up_works(wheel: Path, tmp_path: Path) -> None:
    """In an environment with only the wheel, in an empty folder: up, a scheduled run, status, down."""
    programs = run_install_step(CONTAINERFILES[1], wheel, tmp_path)
    (tmp_path / "home").mkdir()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PIXELMILL_"))
    }

    def call(*arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> CommandResult:
        command = [str(programs / "pixelmill"), *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=cwd or tmp_path,
            env={**kept, **(env or {})},
            check=False,
        )
        return CommandResult(done.returncode, done.stdout, done.stderr)

    check_a_scheduled_run(call, tmp_path / "home")


def test_the_wheel_has_the_templates(build: Build, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            assert f"pixelmill/{path.relative_to(ROOT)}" in names
