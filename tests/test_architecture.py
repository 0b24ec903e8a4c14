"""The rules for imports, checked on the source. `docs/architecture.md` explains them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PIPELINE = sorted(ROOT.glob("pipeline/**/*.py"))
SOURCES = sorted([*PIPELINE, *ROOT.glob("flows/**/*.py")])
OPTIONS_OF_PIP = {
    *("--constraint", "--editable", "--no-deps", "--only-binary", "--retries"),
    *("--disable-pip-version-check", "--dest"),
}
# From the bottom up: a package or module may import only from lower floors, and from its own floor only what
# `BESIDE` lists.
FLOORS = (
    {
        "clutter",
        "display",
        "drift",
        "errors",
        "extras",
        "file_names",
        "labels",
        "part",
        "progress",
        "resources",
    }
    | {"telemetry", "templates"},
    {"config", "layers"},
    {"images", "processes", "storage"},
    {"artifacts", "decoding", "image_encoding", "inference", "limited_process", "recipes"},
    {"bundles", "datasets", "predictions", "run_lock"},
    {"arrivals", "audit", "prediction", "readiness", "registry", "suggestion", "training"},
    {"evaluation", "runs", "scoring", "starting_weights", "status"},
    {"explain", "export", "forget", "promotion", "prune", "review"},
)
BESIDE = {
    "config": {"layers"},
    "errors": {"display"},
    "explain": {"export"},
    "image_encoding": {"images"},
    "scoring": {"evaluation"},
}
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}
HEAVY = {
    "keras",
    "tensorflow",
    "tf2onnx",
    "prefect",
    "sklearn",
    "matplotlib",
    "onnx",
    "onnx_ir",
    "onnxslim",
} | {
    "cleanlab",
    "cv2",
    "imagehash",
    "scipy",
}
# The flows, and modules for their functions.
WITH_PREFECT = (
    *("retraining", "training_progress", "batch_scoring", "refusals", "page", "demo", "gate"),
    *("run_requests", "supervision", "outages", "nightly_scoring", "triggers", "events", "automations"),
)
WITH_PREFECT_FILES = tuple(f"flows/{name}.py" for name in WITH_PREFECT)
ALLOWED_KERAS = ("pipeline/layers/", "pipeline/training/", "pipeline/export/")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, only_top: bool = False) -> Iterator[str]:
    """Every module that a file imports; with `only_top`, those it imports when it is imported."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if only_top and id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            yield node.module or ""


def stage_of(module: str) -> str:
    return module.split(".")[2] if module.startswith("pixelmill.pipeline.") else ""


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_follow_the_rules(path: Path) -> None:
    name = name_of(path)
    modules = set(imports(path))
    packages = {module.split(".")[0] for module in modules}
    assert not packages & {"pipeline", "flows"}, "the import name is pixelmill"
    if not name.startswith("flows/"):
        assert not packages & {"prefect", "typer"}, "only flows/ knows Prefect and the command line"
        assert not any(module.startswith("pixelmill.flows") for module in modules)
    if not name.startswith(ALLOWED_KERAS):
        assert not packages & {"keras", "tensorflow", "tf2onnx"}
    if not name.startswith(("pipeline/images/", "pipeline/image_encoding.py")):
        assert "PIL" not in packages, "one module opens images, another writes them"
    if name not in WITH_PREFECT_FILES:
        top = {module.split(".")[0] for module in imports(path, only_top=True)}
        assert not top & HEAVY, "heavy packages are imported inside functions"


def test_every_package_has_a_floor() -> None:
    names = {
        path.relative_to(ROOT).parts[1].removesuffix(".py") for path in SOURCES if "pipeline" in path.parts
    }
    assert names - {"__init__"} == set(FLOOR_OF)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_imported_from_the_same_floor_or_above(path: Path) -> None:
    top, stage = path.relative_to(ROOT).parts[:2]
    stage = stage.removesuffix(".py")
    if top == "pipeline" and stage != "__init__":
        known = {stage_of(module) for module in imports(path)} - {"", stage} - BESIDE.get(stage, set())
        assert {name for name in known if FLOOR_OF[name] >= FLOOR_OF[stage]} == set()


@pytest.mark.parametrize("path", PIPELINE, ids=name_of)
def test_the_pipeline_names_fields_and_no_options(path: Path) -> None:
    # Whole commands may stand in backquotes.
    text = re.sub(r"`(pixelmill|dask) [^`]*`", "", path.read_text())
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    assert named - OPTIONS_OF_PIP == set(), "the command line turns `top_k` into --top-k"


def test_every_module_is_short_enough_to_read() -> None:
    long = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in long.items() if lines > 350} == {}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_function_fits_on_a_screen(path: Path) -> None:
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    if path.parent.name == "commands":
        lengths.pop(path.stem, None)  # A command declares an option in several lines.
    assert {name: lines for name, lines in lengths.items() if lines > 60} == {}


def test_importing_has_no_side_effects(tmp_path: Path) -> None:
    modules = [
        "pixelmill." + name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in SOURCES
        if name_of(path) not in WITH_PREFECT_FILES
    ]
    program = (
        f"import importlib, logging, sys\nfor name in {modules}: importlib.import_module(name)\n"
        f"heavy = {sorted(HEAVY)}\n"
        "print([name for name in heavy if name in sys.modules], logging.getLogger('pixelmill').handlers)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] []"
    assert not list(tmp_path.iterdir())
