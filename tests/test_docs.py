"""The README and the pages of `docs/` are correct: commands, programs, links, trees, tables."""

import io
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from tests.test_architecture import FLOORS

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for pattern in ("*.md", "docs/*.md", "artifacts/*.md", "deploy/*.md", ".github/*/*.md")
    for path in sorted(ROOT.glob(pattern))
}
README = PAGES["README.md"]
_MOST_WORDS = 1000

# These need more than the installation, and have separate tests.
_NEED_MORE = ("--web", "--keras-file", "--format", "--sign", "--key")
# The arguments of `make` are checked here. What is done with Prefect and containers is run by
# tests/deployment/test_page.py, and what is done with pip by tests/test_installation.py.
_OTHER_PROGRAMS = {
    *("make", "pip", "export", "until", "dask", "docker", "openssl"),
    *(".venv/bin/prefect", ".venv/bin/python", ".venv/bin/pixelmill"),
}
# These start and use a server, which tests/flows/commands/test_up.py does with the lines of the pages.
_WITH_SERVER = {"up", "down", "status", "prune", "deploy"}


def blocks(page: str, language: str) -> list[str]:
    return [block for kind, block in code_of(page) if kind == language]


def code_of(page: str) -> list[tuple[str, str]]:
    """The language and the text of each code block of a page, in order."""
    return re.findall(r"^ *```(\w+)\n(.*?)^ *```", PAGES[page], re.DOTALL | re.MULTILINE)


def commands_of(block: str) -> Iterator[list[str]]:
    """The commands of a block; an indented line continues the previous one."""
    for line in re.split(r"\n(?! )", re.sub(r"\\\n", " ", block)):
        if words := shlex.split(line, comments=True):
            yield words


def subcommand(words: list[str]) -> tuple[Any, list[str]]:
    """The subcommand of `pixelmill` that a command line calls, and its arguments."""
    command: Any = get_command(app)
    rest = list(words)
    while rest and hasattr(command, "commands") and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def options_of(command: Any) -> set[str]:
    """The options of a command and its subcommands."""
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union({"--help", "-h"}, *map(options_of, getattr(command, "commands", {}).values()))


def in_code(text: str) -> list[str]:
    """The text in backticks outside of code blocks."""
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose)]


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= _MOST_WORDS


def test_every_line_of_the_tree_exists() -> None:
    (tree,) = blocks("docs/architecture.md", "text")
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else name
        path = ROOT / folder / name if line.startswith(" ") else ROOT / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), line


def test_everything_at_the_top_is_documented() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("no git checkout here")
    conventional = {
        ".ci",
        ".github",
        ".gitignore",
        ".pre-commit-config.yaml",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "constraints.txt",
        "pyproject.toml",
    }
    (tree,) = blocks("docs/architecture.md", "text")
    described = {line.split("/")[0] for line in tree.splitlines() if not line.startswith(" ")}
    assert {path.split("/")[0] for path in tracked} == conventional | described


def test_the_documented_floors_are_the_checked_ones() -> None:
    rows = re.findall(r"^    (\d)  (.*)$", PAGES["docs/architecture.md"], re.MULTILINE)
    described = {int(number): set(names.split(", ")) for number, names in rows}
    assert described == dict(enumerate(FLOORS, start=1))


def test_the_modules_on_the_path_of_an_image_exist() -> None:
    page = PAGES["docs/architecture.md"]
    paths = page[page.index("## The path of an image") : page.index("## House rules")]
    for name in in_code(paths):
        found = [*ROOT.glob(f"pipeline/**/{name}.py"), *ROOT.glob(f"pipeline/**/{name}/__init__.py")]
        assert found, name


def test_the_names_in_the_drawing_exist() -> None:
    drawing = (ROOT / "docs/modules.svg").read_text(encoding="utf-8")
    words = " ".join(re.findall(r"<text[^>]*>([^<]*)<", drawing))
    for name in re.findall(r"flows/\w+\.py", words):
        assert (ROOT / name).is_file()
    source = "\n".join(path.read_text() for path in ROOT.glob("pipeline/**/*.py"))
    classes = re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", words)
    assert len(classes) == 7
    for name in (*classes, "Evaluation"):
        assert f"class {name}" in source, name
    shared = words[words.index("shared: ") :].replace("(the only decoder)", "").replace("below them:", ",")
    for name in shared.removeprefix("shared: ").split(","):
        if name.strip():
            assert list(ROOT.glob(f"pipeline/{name.strip()}*")), name


@pytest.mark.parametrize("page", PAGES)
def test_files_and_modules_in_a_page_exist(page: str) -> None:
    ours = r"(?:pipeline|flows|tests|docs|deploy|pixelmill|\.ci)/[\w./-]*"
    for name in in_code(PAGES[page]):
        if re.fullmatch(ours, name):
            assert (ROOT / name).exists(), name
    for module in re.findall(r"python -m (tests[\w.]+)", PAGES[page]):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


@pytest.mark.parametrize("page", PAGES)
def test_links_have_a_target(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        place = (ROOT / page).parent / name if name else ROOT / page
        assert place.resolve().is_relative_to(ROOT)
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}


def test_every_page_is_linked_in_the_readme() -> None:
    for page in PAGES:
        if page.startswith("docs/") or page in {"CONTRIBUTING.md", "CHANGELOG.md"}:
            assert f"]({page})" in README


def test_the_documented_columns_are_those_of_the_table() -> None:
    page = PAGES["docs/scoring.md"]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
    layout = TableLayout(
        top_k=2, true_labels=True, decisions=True, multi_label=True, embedding_size=4, seen=True
    )
    columns = schema(layout)
    assert [name for name, _ in rows] == columns.names
    described: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in ("string", "int32", "float", "bool")}
    described["list"] = ("list", "fixed_size_list")
    for name, kind in rows:
        assert str(columns.field(name).type).startswith(described[kind])
    assert all(f"`{code}`" in page for code in FailureCode)


def test_the_documented_recipes_are_the_built_in_ones() -> None:
    (tree,) = blocks("docs/architecture.md", "text")
    (line,) = [line for line in tree.splitlines() if line.startswith("  recipes/")]
    assert set(line.split(": ")[1].split(", ")) == set(shipped_recipes())
    table = PAGES["docs/recipes.md"].split("```")[0]
    first_cells = " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    assert set(re.findall(r"`([\w-]+)`", first_cells)) == set(shipped_recipes())


def test_the_parts_of_recipes_are_valid() -> None:
    layers, *parts = map(yaml.safe_load, blocks("docs/recipes.md", "yaml"))
    recipe = {**load_recipe("cifar10").model_dump(mode="json"), "model": layers}
    parse_recipe(recipe, "docs/recipes.md")
    for part in parts:
        parse_recipe({**recipe, **part}, "docs/recipes.md")


@pytest.mark.parametrize("page", PAGES)
def test_the_options_and_commands_in_a_page_exist(page: str) -> None:
    every_option = options_of(get_command(app))
    for code in in_code(PAGES[page]):
        words = code.split()
        if words[0] == "pixelmill" and len(words) > 1 and words[1] != "COMMAND":
            command, rest = subcommand(words[1:])
            assert command is not get_command(app), code
            assert {word for word in rest if word.startswith("--")} <= options_of(command), code
        elif words[0].startswith("--"):
            assert words[0] in every_option, code


# Pages with code that is run, and the commands that they show.
RUN = {
    "README.md": {"retrain", "models", "score", "explain", "review", "export", "up", "status", "down"},
    "docs/getting-started.md": {"retrain", "recipes", "models", "score", "explain"},
    "docs/recipes.md": {"models", "recipes", "retrain"},
    "docs/audit.md": {"audit"},
    "docs/scoring.md": {"score", "predict", "explain", "review"},
    "docs/bundle.md": {"export", "verify"},
    "docs/deployment.md": {"score", *_WITH_SERVER},
    "docs/python-api.md": set[str](),
    "CONTRIBUTING.md": set[str](),
}


def test_every_page_with_code_is_run() -> None:
    assert {page for page in PAGES if blocks(page, "bash") or blocks(page, "python")} == set(RUN)


@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs(
    page: str,
    run: Run,
    trained_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Run the code in order, with the model `digits` for the models of the reader."""
    _make_folders(tmp_path, trained_store)
    monkeypatch.chdir(tmp_path)
    called = set()
    for language, block in code_of(page):
        if language == "python":
            _run_program(block, page, capsys)
        elif language == "bash":
            for words in commands_of(block):
                assert words[0] in {"pixelmill", *_OTHER_PROGRAMS}, words
                if words[0] == "pixelmill":
                    called.add(words[1])
                    _run_command(words[1:], run, tmp_path)
    assert called == RUN[page]


def _make_folders(folder: Path, store: Path) -> None:
    """Create what a reader has: a store, photographs by class, and folders of images to score."""
    (folder / "artifacts").symlink_to(store)
    write_images(folder / "images", 5)
    write_images(folder / "images/7", 1)
    write_images(folder / "photos/garden", 1)[0].rename(folder / "photos/garden/0001.jpg")
    for name in ("sevens/0001.png", "sevens/0002.scan"):
        write_images(folder / "images/sevens", 1, seed=len(name))[0].rename(folder / "images" / name)
    (folder / "images.csv").write_text("image_path,camera\n7/00000.png,3\n00001.png,4\n")
    shutil.make_archive(str(folder / "images"), "zip", folder / "images", "7")
    for name in ("pets/cat", "pets/dog"):
        write_images(folder / name, 3, seed=len(name))
    (folder / "seven.png").write_bytes(encode_png(np.full((20, 30, 3), 90, np.uint8)))


def _run_program(program: str, page: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = program.replace("models/mnist/1", "models/digits/1").replace("mnist@", "digits@")
    capsys.readouterr()
    exec(compile(program, page, "exec"), {})
    printed = capsys.readouterr().out
    if "probability)" in program or "probabilities[0].max())" in program:
        label, probability = printed.split()[:2]
        assert label in "0123456789"
        assert 0 < float(probability) <= 1
    else:
        assert printed


def _run_command(words: list[str], run: Run, folder: Path) -> None:
    """Run commands that show and score, and check the options of those that train or need more."""
    words = [re.sub(r"^(mnist|pets)@", "digits@", word) for word in words]
    command, rest = subcommand(words)
    command.make_context(words[0], rest)
    if words[0] in _WITH_SERVER:
        return
    if words[0] == "retrain":
        recipe, *options = words[1:]
        done = run("recipes", "show", recipe, *options, cwd=folder)
    elif any("://" in word or word in _NEED_MORE for word in words):
        return
    else:
        done = run(*words, cwd=folder)
    assert done.code == 0, (words, done.errors)


@pytest.mark.parametrize("page", PAGES)
def test_the_make_targets_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    in_blocks = [
        words[1] for block in blocks(page, "bash") for words in commands_of(block) if words[0] == "make"
    ]
    for target in [
        *in_blocks,
        *(code.split()[1] for code in in_code(PAGES[page]) if code.startswith("make ")),
    ]:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        assert re.search(rf"^\.PHONY:.* {target}( |$)", makefile, re.MULTILINE), target


def test_continuous_integration_runs_make_test() -> None:
    assert (ROOT / ".ci/run").read_text().strip().endswith("exec make test")
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    assert {"run": ".ci/run"} in workflow["jobs"]["test"]["steps"]


def test_the_hooks_are_those_of_make_lint() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    makefile = (ROOT / "Makefile").read_text()
    for hook in hooks:
        program, subcommand, *_ = hook["entry"].split()
        assert f"{program} {subcommand}".replace(".venv/bin", "$(BIN)") in makefile


@pytest.mark.parametrize("page", PAGES)
def test_the_extras_exist(page: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for names in re.findall(r"(?:pixelmill|\.)\[([\w,-]+)\]", PAGES[page]):
        assert set(names.split(",")) <= set(project["optional-dependencies"])


def test_the_numbers_of_the_readme_are_those_of_the_benchmarks() -> None:
    benchmarks = PAGES["docs/benchmarks.md"]
    measured = README[README.index("## Measured") : README.index("## Read on")]
    rows = [line for line in measured.splitlines() if line.startswith("| ")][1:]
    assert len(rows) <= 6
    for row in rows:
        for number in re.findall(r"\d[\d,]*\.\d+(?:e-\d+)?|\d[\d,]{3,}", row):
            assert number in benchmarks, (row, number)


def test_a_command_starts_without_heavy_packages(trained_store: Path) -> None:
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


def test_the_json_of_scoring_has_the_documented_keys(run: Run, trained_store: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    command = ("score", "digits@1", tmp_path / "images", "--output", tmp_path / "out", "--json")
    counts = json.load(io.StringIO(run(*command, "--store", trained_store).output))
    wanted = "listed scored failed images_per_second seconds provider threads failures"
    assert set(wanted.split()) <= set(counts)
