"""The installation: the built distributions, and scoring with the base packages only."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pixelmill.pipeline.predictions import read_predictions
from tests.conftest import write_images
from tests.test_docs import blocks

ROOT = Path(__file__).resolve().parent.parent
# The environments that are created here are shared.
pytestmark = pytest.mark.xdist_group("installation")
LEFT_OUT = ("prefect", "tensorflow", "keras", "onnx", "tf2onnx", "sklearn", "matplotlib", "dask")
_PACKAGED = ("pipeline", "flows", "pixelmill", "deploy")
# Calls a function of a build backend like pip: which one, and where the result goes.
_BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"

Build = Callable[[str, Path], Path]


def _environment(folder: Path, *packages: str | Path) -> Path:
    """A virtual environment with packages in the versions of `constraints.txt`."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip: list[str | Path] = [folder / "bin/python", "-m", "pip", "install", "--quiet", *packages]
    options: list[str | Path] = ["--disable-pip-version-check", "--constraint", ROOT / "constraints.txt"]
    done = subprocess.run([*pip, *options], capture_output=True, text=True, check=False)
    if done.returncode and re.search("connection|resolve|No matching distribution", done.stderr):
        pytest.skip(f"the package index cannot be reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with only the build backend."""
    return _environment(tmp_path_factory.mktemp("builder") / "venv", "setuptools>=77")


@pytest.fixture(scope="module")
def build(builder: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build a project with a function of the backend; returns the file."""

    def call(function: str, project: Path) -> Path:
        target = tmp_path_factory.mktemp("dist")
        command: list[str | Path] = [builder / "python", "-c", _BUILD, function, str(target)]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return target / done.stdout.splitlines()[-1]

    return call


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packaged files, so that nothing is built in the project's folder."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in _PACKAGED:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def sdist(build: Build, checkout: Path) -> Path:
    """The source distribution, unpacked."""
    archive = build("build_sdist", checkout)
    with tarfile.open(archive) as file:
        file.extractall(archive.parent, filter="data")
    folder: Path = archive.parent / archive.name.removesuffix(".tar.gz")
    return folder


@pytest.fixture(scope="module")
def wheel(build: Build, sdist: Path) -> Path:
    """The wheel built from the source distribution."""
    return build("build_wheel", sdist)


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with pixelmill and only its base dependencies."""
    return _environment(tmp_path_factory.mktemp("base") / "venv", wheel)


def packaged_files() -> set[str]:
    """The files that an installation must contain, by path."""
    found = {
        path.relative_to(ROOT).as_posix()
        for top in _PACKAGED
        for path in sorted((ROOT / top).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    return {name if name.startswith("pixelmill/") else f"pixelmill/{name}" for name in found}


def test_the_distributions_contain_every_file_and_one_import_name(
    build: Build, checkout: Path, sdist: Path, wheel: Path
) -> None:
    expected = packaged_files()
    assert {"pixelmill/py.typed", "pixelmill/pipeline/recipes/mnist.yaml"} <= expected
    assert {"pixelmill/deploy/prefect.yaml", "pixelmill/deploy/constraints.txt"} <= expected
    assert "pixelmill/pipeline/export/web/index.html" in expected
    assert "pixelmill/pipeline/scoring/report.html.jinja" in expected
    unpacked = [path.relative_to(sdist) for path in sdist.rglob("*") if path.is_file()]
    assert expected <= {path.as_posix() for path in unpacked}
    for built in (wheel, build("build_wheel", checkout)):
        with zipfile.ZipFile(built) as file:
            names = set(file.namelist())
        assert {name for name in names if ".dist-info/" not in name} == expected
        (top_level,) = [name for name in names if name.endswith(".dist-info/top_level.txt")]
        assert zipfile.ZipFile(built).read(top_level).split() == [b"pixelmill"]


def test_an_editable_installation_finds_every_file(builder: Path, build: Build, checkout: Path) -> None:
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    editable = build("build_editable", checkout)
    subprocess.run([builder / "python", *install, editable], check=True)
    look = "import pixelmill, pathlib; print(pathlib.Path(pixelmill.__file__).parent)"
    # Isolated, so that the package is not found in the working folder.
    found = subprocess.run(
        [builder / "python", "-I", "-c", look], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    package = Path(found.stdout.strip())
    assert package == checkout / "pixelmill"
    assert [name for name in packaged_files() if not (package.parent / name).is_file()] == []


def test_the_commands_run_beside_packages_called_pipeline_and_flows(
    base: Path, build: Build, trained_store: Path, tmp_path: Path
) -> None:
    """The index has a package `pipeline`, and users may have folders with these names."""
    for place, whose in (("theirs", "installed"), ("project", "in the working folder")):
        for name in ("pipeline", "flows"):
            (tmp_path / place / name).mkdir(parents=True)
            (tmp_path / place / name / "__init__.py").write_text(f"WHOSE = {whose!r}\n")
    (tmp_path / "theirs/pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "pipeline"\nversion = "1"\n[tool.setuptools]\npackages = ["pipeline", "flows"]\n'
    )
    theirs = build("build_wheel", tmp_path / "theirs")
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([base / "python", *pip, theirs], check=True)
    look = "import pipeline, flows, pixelmill.pipeline, pixelmill.flows; print(pipeline.WHOSE, flows.WHOSE)"
    project = tmp_path / "project"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for environment, whose in (
        (clean, "installed"),
        ({**clean, "PYTHONPATH": str(project)}, "in the working folder"),
    ):
        for arguments, printed in ((["--version"], "pixelmill"), (["models"], "digits@1")):
            done = subprocess.run(
                [base / "pixelmill", *arguments],
                cwd=project,
                env={**environment, "PIXELMILL_STORE": str(trained_store)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert printed in done.stdout
        done = subprocess.run(
            [base / "python", "-P", "-c", look],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == f"{whose} {whose}", done.stderr


def test_scoring_runs_without_tensorflow_and_prefect(base: Path, trained_store: Path, tmp_path: Path) -> None:
    look = f"from importlib.util import find_spec; print([n for n in {LEFT_OUT} if find_spec(n)])"
    # Isolated, so that the packages in this folder are not found.
    found = subprocess.run([base / "python", "-I", "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    write_images(tmp_path / "images", 20)
    command: list[str | Path] = [
        base / "pixelmill",
        "score",
        "digits@champion",
        "images",
        "--output",
        "out",
        "--json",
    ]
    environment = {**os.environ, "PIXELMILL_STORE": str(trained_store)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scored"] == 20
    assert len(read_predictions(tmp_path / "out")) == 20
    shown = subprocess.run(
        [base / "pixelmill", "models"], env=environment, capture_output=True, text=True, check=True
    )
    assert "digits@1" in shown.stdout


def test_verifying_runs_installed_engines_and_says_how_to_install_the_others(
    base: Path, trained_store: Path
) -> None:
    command: list[str | Path] = [base / "pixelmill", "verify", "digits@1", "--store", trained_store]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime " in done.stdout
    assert done.stdout.strip().endswith("not installed: onnx ReferenceEvaluator, OpenVINO, OpenCV, tract")
    done = subprocess.run([*command, "--engine", "tract"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "--engine tract, which is not installed" in line
    assert line.endswith(f"Install it: {base / 'python'} -m pip install tract")


def test_retraining_reports_missing_extras(base: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [base / "pixelmill", "retrain", "digits"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    # The environment was made from a wheel, which the command names.
    wanted = rf"Install them: {base}/python -m pip install '/[^ ]*\.whl\[flows,train\]'"
    assert re.search(f"{wanted}$", line), line


@pytest.mark.slow
def test_the_command_in_a_message_installs_what_is_missing(checkout: Path, tmp_path: Path) -> None:
    place = _environment(tmp_path / "venv", checkout)
    score: list[str | Path] = [
        place / "pixelmill",
        "score",
        "digits@1",
        "images",
        "--output",
        "out",
        "--store",
        "s3://bucket/store",
    ]
    # No server listens there, so that an installation with the extra ends, too.
    environment = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}

    def last_error() -> str:
        done = subprocess.run(
            score, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.stderr.strip().splitlines()[-1]

    told = last_error()
    assert told.startswith("pixelmill: address s3://bucket/store"), told
    command = shlex.split(told.partition("for s3://: ")[2])
    assert command[:4] == [str(place / "python"), "-m", "pip", "install"]
    assert str(checkout / "constraints.txt") in command
    subprocess.run(command, capture_output=True, check=True)
    assert "address s3://bucket/store" not in last_error()


def test_constraints_are_exact_and_contain_no_index() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_]+", pin) for pin in pins)
    assert len(pins) > 100


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_lines_of_the_readme_install_what_they_say(checkout: Path, tmp_path: Path) -> None:
    """In an empty environment each, from a folder with nothing but the checkout."""
    (block,) = [block for block in blocks("README.md", "bash") if block.startswith("pip install")]
    retraining, scoring = block.strip().splitlines()
    for line, has_prefect in ((scoring, False), (retraining, True)):
        place = tmp_path / str(has_prefect)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        environment = {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", line], cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        shown = subprocess.run(
            [place / "bin/pixelmill", "recipes"], cwd=tmp_path, capture_output=True, check=False
        )
        assert shown.returncode == 0, shown.stderr
        assert (place / "bin/prefect").exists() == has_prefect
