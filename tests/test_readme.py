"""What the README promises: its tree, its columns, its commands, its example."""

import io
import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.main import get_command

from pixelmill.flows.command_line import app
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.images import FailureCode
from pixelmill.pipeline.predictions.columns import TableLayout, schema
from pixelmill.pipeline.recipes import load_recipe, parse_recipe, shipped_recipes
from tests.conftest import PIXELMILL, Run, write_images

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()

# What is needed for these is no part of the installation; they have tests of their own.
_NEED_MORE = ("--web", "--keras-file")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_line_of_the_tree_is_there() -> None:
    (tree,) = blocks("text")
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else name
        path = ROOT / folder / name if line.startswith(" ") else ROOT / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), line


def test_everything_at_the_top_is_told() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("no git checkout here")
    conventional = {
        ".ci",
        ".gitignore",
        "LICENSE",
        "Makefile",
        "README.md",
        "constraints.txt",
        "pyproject.toml",
    }
    told = {line.split("/")[0] for line in blocks("text")[0].splitlines() if not line.startswith(" ")}
    assert {path.split("/")[0] for path in tracked} == conventional | told


def test_the_columns_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", README, re.MULTILINE)
    columns = schema(TableLayout(top_k=2, true_labels=True))
    assert [name for name, _ in rows] == columns.names
    told = {"string": "string", "int32": "int32", "float": "float", "list": "list"}
    for name, kind in rows:
        assert str(columns.field(name).type).startswith(told[kind])
    assert all(f"`{code}`" in README for code in FailureCode)


def test_the_recipes_are_those_that_ship() -> None:
    (line,) = [line for line in README.splitlines() if line.startswith("  recipes/")]
    assert set(line.split(": ")[1].split(", ")) == set(shipped_recipes())


def test_the_layers_make_a_network() -> None:
    (layers,) = blocks("yaml")
    recipe = load_recipe("cifar10").model_dump(mode="json")
    recipe["model"] = yaml.safe_load(layers)
    parse_recipe(recipe, "README.md")


def test_the_commands_run(run: Run, trained_store: Path, tmp_path: Path) -> None:
    """Those that show and score are run; those that train are checked to the last option."""
    commands = [
        shlex.split(line, comments=True)[1:]
        for block in blocks("bash")
        for line in re.split(r"\n(?! )", block)
        if line.startswith("pixelmill ")
    ]
    assert {command[0] for command in commands} == {
        "models",
        "retrain",
        "score",
        "explain",
        "export",
        "recipes",
        "verify",
    }
    (tmp_path / "artifacts").symlink_to(trained_store)
    write_images(tmp_path / "images", 5)
    write_images(tmp_path / "images/7", 1)
    for name in ("sevens/0001.png", "sevens/0002.scan"):
        write_images(tmp_path / "images/sevens", 1, seed=len(name))[0].rename(tmp_path / "images" / name)
    for command in commands:
        if command[0] == "retrain":
            recipe, *options = command[1:]
            answer = run("recipes", "show", recipe, *options, cwd=tmp_path)
        elif command[:2] in (["models", "promote"], ["models", "rollback"]):
            answer = run(*command[:2], "--help")
        elif any("://" in word or word in _NEED_MORE for word in command):
            get_command(app).make_context("pixelmill", command, resilient_parsing=False)
            continue
        elif "mnist@champion" in command:
            answer = run(*[word.replace("mnist", "digits") for word in command], cwd=tmp_path)
        else:
            answer = run(*command, cwd=tmp_path)
        assert answer.code == 0, (command, answer.errors)


def test_the_make_targets_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert (ROOT / ".ci/run").read_text().strip().endswith("exec make test")


def test_the_example_of_another_system_runs(
    trained_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = blocks("python")
    (tmp_path / "artifacts").symlink_to(trained_store)
    (tmp_path / "seven.png").write_bytes(encode_png(np.full((20, 30, 3), 90, np.uint8)))
    monkeypatch.chdir(tmp_path)
    exec(compile(example.replace("models/mnist/1", "models/digits/1"), "README.md", "exec"), {})
    label, probability = capsys.readouterr().out.split()
    assert label in "0123456789"
    assert 0 < float(probability) <= 1


def test_a_command_starts_without_the_heavy_packages(trained_store: Path) -> None:
    heavy = ("prefect", "tensorflow", "keras", "onnx", "pandas", "pyarrow", "sklearn", "matplotlib")
    done = subprocess.run(
        [
            PIXELMILL.with_name("python"),
            "-X",
            "importtime",
            str(PIXELMILL),
            "models",
            "--store",
            trained_store,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {
        line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
    }
    assert "pixelmill.pipeline.registry" in loaded
    assert not loaded & set(heavy)


def test_the_json_of_scoring_has_what_scripts_read(run: Run, trained_store: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    command = ("score", "digits@1", tmp_path / "images", "--output", tmp_path / "out", "--json")
    counts = json.load(io.StringIO(run(*command, "--store", trained_store).output))
    wanted = "listed scored failed images_per_second seconds provider threads failures"
    assert set(wanted.split()) <= set(counts)
