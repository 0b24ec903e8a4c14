"""The rules of who imports whom, read from the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("flows/**/*.py")])
# What a module of the shared ground may know of the others of its kind, from the bottom up.
BELOW = {
    "clutter": set(),
    "display": set(),
    "labels": set(),
    "errors": {"display"},
    "file_names": set(),
    "config": set(),
    "drift": set(),
    "resources": set(),
    "progress": set(),
    "telemetry": set(),
    "templates": set(),
    "processes": {"errors"},
    "limited_process": {"errors", "processes"},
    "locations": {"errors"},
    "artifacts": {"errors", "locations"},
    "images": {"config"},
    "image_encoding": {"config", "images"},
    "decoding": {"config", "errors", "images", "processes", "resources"},
    "preprocessing": {"artifacts", "config", "images"},
    "predictions": {"artifacts", "clutter", "errors", "locations"},
    "inference": {"errors", "images"},
}
GROUND = sorted(BELOW)
HEAVY = {"keras", "tensorflow", "tf2onnx", "prefect", "sklearn", "matplotlib", "onnx", "onnxslim"}
# The flows themselves, and what stands around their functions.
WITH_PREFECT = ("retraining", "training_progress", "batch_scoring", "refusals", "page", "demo")
WITH_PREFECT_FILES = tuple(f"flows/{name}.py" for name in WITH_PREFECT)
ALLOWED_KERAS = ("pipeline/training/", "pipeline/export/")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, only_top: bool = False) -> Iterator[str]:
    """Every module that a file imports; with `only_top`, those it imports when it is imported."""
    tree = ast.parse(path.read_text())
    guarded = [
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for inner in ast.walk(node)
    ]
    for node in ast.walk(tree):
        if only_top and any(node is inner for inner in guarded):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            yield node.module or ""


def stage_of(module: str) -> str:
    return module.split(".")[1] if module.startswith("pipeline.") else ""


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_keep_to_the_rules(path: Path) -> None:
    name = name_of(path)
    modules = set(imports(path))
    packages = {module.split(".")[0] for module in modules}
    if not name.startswith("flows/"):
        assert not packages & {"prefect", "flows", "typer"}, "only flows/ knows Prefect and the command line"
    if not name.startswith(ALLOWED_KERAS):
        assert not packages & {"keras", "tensorflow", "tf2onnx"}
    if not name.startswith(("pipeline/images/", "pipeline/image_encoding.py")):
        assert "PIL" not in packages, "one module opens images, another writes them"
    if name not in WITH_PREFECT_FILES:
        top = {module.split(".")[0] for module in imports(path, only_top=True)}
        assert not top & HEAVY, "heavy packages are imported inside functions"


@pytest.mark.parametrize("name", GROUND)
def test_the_shared_ground_knows_only_what_lies_below(name: str) -> None:
    files = [*ROOT.glob(f"pipeline/{name}.py"), *ROOT.glob(f"pipeline/{name}/*.py")]
    known = {stage_of(module) for path in files for module in imports(path)} - {"", name}
    assert files
    assert known <= BELOW[name]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_stages_do_not_reach_forward(path: Path) -> None:
    order = ["layers", "recipes", "datasets", "training", "evaluation", "export", "registry", "scoring"]
    order += ["proving", "promotion", "judging"]
    parts = path.relative_to(ROOT).parts
    stage = parts[1].removesuffix(".py")
    if parts[0] == "pipeline" and stage in order:
        later = set(order[order.index(stage) + 1 :])
        assert not {stage_of(module) for module in imports(path)} & later


def test_every_module_is_short_enough_to_read() -> None:
    long = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in long.items() if lines > 350} == {}


def test_importing_everything_touches_nothing(tmp_path: Path) -> None:
    modules = [
        name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in SOURCES
        if name_of(path) not in WITH_PREFECT_FILES
    ]
    program = (
        f"import importlib, logging, sys\nfor name in {modules}: importlib.import_module(name)\n"
        f"heavy = {sorted(HEAVY)}\n"
        "print([name for name in heavy if name in sys.modules], logging.getLogger('pipeline').handlers)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] []"
    assert not list(tmp_path.iterdir())
