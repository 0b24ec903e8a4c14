"""The options of every command: `--version`, `-h`, `--quiet`, and shell completion."""

from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import Run, write_images

COMMANDS = [
    "",
    "demo",
    "retrain",
    "score",
    "explain",
    "export",
    "verify",
    "models",
    "models show",
    "recipes list",
]


def test_the_installed_versions_are_shown(run: Run) -> None:
    lines = run("--version").output.splitlines()
    assert lines[0] == f"pixelmill {version('pixelmill')}"
    assert f"onnxruntime {version('onnxruntime')}" in lines
    assert f"Prefect {version('prefect')}" in lines


@pytest.mark.parametrize("command", COMMANDS)
def test_h_shows_the_help(run: Run, command: str) -> None:
    result = run(*command.split(), "-h")
    assert result.code == 0
    assert "Usage: " in result.output
    assert f"pixelmill {command}".strip() in result.output
    assert "--quiet" in result.output or command in ("models",)


@pytest.mark.parametrize("before", [True, False], ids=["before the command", "after it"])
def test_a_quiet_command_shows_no_progress(
    run: Run, trained_store: Path, tmp_path: Path, before: bool
) -> None:
    write_images(tmp_path / "images", 5)
    command = [
        "score",
        "digits@1",
        tmp_path / "images",
        "--output",
        tmp_path / "out",
        "--store",
        trained_store,
    ]
    result = run(*(["-q", *command] if before else [*command, "--quiet"]))
    assert (result.code, result.errors) == (0, "")
    assert result.output.startswith("Scored 5 of 5 images")
    assert "score: 5 of 5 images" in run(*command, "--fresh").errors
    refused = run(*command, "--quiet", "--top-k", "3")
    assert refused.code == 2
    assert refused.errors.startswith("pixelmill: ")


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("pixelmill s", ["score", "status"]),
        ("pixelmill models r", ["rollback"]),
        ("pixelmill score --top", ["--top-k"]),
    ],
)
def test_the_shell_completes(run: Run, line: str, completed: list[str]) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    result = run(env={"_PIXELMILL_COMPLETE": "complete_bash", **words})
    assert result.output.split() == completed


def test_the_completion_script_is_shown(run: Run) -> None:
    result = run("--show-completion", "bash", env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert result.code == 0
    assert "complete -o default -F _pixelmill_completion pixelmill" in result.output
