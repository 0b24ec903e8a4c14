"""Ctrl-C and SIGTERM at any time: one line, exit code 130 or 143, no traceback."""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.conftest import PIXELMILL, Run, start_interruptible, write_images


def wait_until_mapped(process: "subprocess.Popen[str]", library: str) -> None:
    """Wait until a process is importing the package of a library."""
    while process.poll() is None:
        if library in Path(f"/proc/{process.pid}/maps").read_text():
            return
    raise AssertionError(f"it ended before it loaded {library}")


def require_one_line(process: "subprocess.Popen[str]", number: int) -> None:
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait() == 128 + number, errors
    assert "Traceback" not in errors
    assert errors.strip().splitlines()[-1].startswith("pixelmill: interrupted; "), errors


@pytest.fixture(scope="module")
def table(trained_store: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    write_images(folder / "images", 3)
    command = ("score", "digits@1", folder / "images", "--output", folder / "table", "--store", trained_store)
    assert run(*command).code == 0
    return folder / "table"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize(
    ("command", "library"),
    [
        ("models list", "_pydantic_core"),
        ("models list", "_multiarray_umath"),
        ("verify digits@1", "_multiarray_umath"),
        ("explain TABLE 00000.png", "libarrow"),
        ("export digits@1 --output NEW --runtime-version 1.14", "_multiarray_umath"),
    ],
)
def test_an_interrupted_command_ends_with_one_line(
    trained_store: Path, table: Path, tmp_path: Path, number: int, command: str, library: str
) -> None:
    words = {"TABLE": str(table), "NEW": str(tmp_path / "new")}
    arguments = [words.get(word, word) for word in command.split()]
    process = start_interruptible([str(PIXELMILL), *arguments, "--store", str(trained_store)])
    wait_until_mapped(process, library)
    process.send_signal(number)
    require_one_line(process, number)
    assert not list(tmp_path.iterdir())


def test_terminated_scoring_ends_its_workers(trained_store: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 12_000)
    command = [
        str(PIXELMILL),
        "score",
        "digits@1",
        str(tmp_path / "images"),
        "--output",
        str(tmp_path / "out"),
    ]
    process = start_interruptible([*command, "--store", str(trained_store), "--workers", "1"])
    assert process.stderr is not None
    # Once images are scored, a line is printed every few seconds.
    assert any(line.lstrip().startswith("score:") for line in process.stderr)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    require_one_line(process, signal.SIGTERM)
    assert psutil.wait_procs(family, timeout=30)[1] == []


def test_an_ignored_ctrl_c_stays_ignored(run: Run, trained_store: Path) -> None:
    script = 'trap "" INT; exec "$@"'
    command = ["sh", "-c", script, "sh", str(PIXELMILL), "models", "list", "--store", str(trained_store)]
    process = start_interruptible(command)
    wait_until_mapped(process, "_pydantic_core")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 0
