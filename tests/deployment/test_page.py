"""The blocks of `docs/deployment.md` that `tests/test_docs.py` only checks, run as a reader would."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixelmill.flows.server_api import ServerApi
from tests.deployment.machine import wait_for
from tests.flows.conftest import free_port
from tests.test_docs import blocks
from tests.test_installation import ROOT, build, builder, checkout, sdist, wheel

__all__ = ["build", "builder", "checkout", "sdist", "wheel"]  # Fixtures.
PAGE = "docs/deployment.md"
PROGRAMS = Path(sys.executable).parent

pytestmark = pytest.mark.slow


def run_lines(lines: str, folder: Path, environment: dict[str, str]) -> None:
    """Run a block in a shell that ends at the first error."""
    done = subprocess.run(
        ["bash", "-e", "-c", lines],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a reader who has the programs of this environment on the path, and no server."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PIXELMILL_"))
    }
    mine = {**kept, "PREFECT_HOME": str(tmp_path / "prefect"), "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    yield mine
    subprocess.run([PROGRAMS / "prefect", "server", "stop"], env=mine, capture_output=True, check=False)


@pytest.mark.xdist_group("prefect-server")
@pytest.mark.timeout(900)
def test_server_and_worker_each_by_itself(environment: dict[str, str], tmp_path: Path) -> None:
    (_, _, block, kubernetes, _) = blocks(PAGE, "bash")
    # Another server may be at work on the documented port.
    port = free_port()
    lines = block.replace("4200", str(port))
    *before, worker = lines.strip().splitlines()
    assert worker.split()[:2] == [".venv/bin/pixelmill", "worker"]
    project = tmp_path / "project"
    project.mkdir()
    for name in (".venv", "deploy", "flows", "pipeline", "pixelmill"):
        (project / name).symlink_to(ROOT / name)
    environment["PREFECT_SERVER_API_PORT"] = str(port)
    run_lines("\n".join([*before, kubernetes]), project, environment)
    api = ServerApi(f"http://127.0.0.1:{port}/api")
    found = api.post("deployments/filter")
    assert {each["name"] for each in found} == {"nightly", "nightly-scores", "watch", "score"}
    assert {each["name"]: each["type"] for each in api.post("work_pools/filter")} == {
        "pixelmill": "process",
        "gpu": "kubernetes",
    }
    exported = [line for line in before if line.startswith("export")]
    with subprocess.Popen(
        ["bash", "-c", "\n".join([*exported, f"exec {worker}"])], cwd=project, env=environment
    ) as process:
        try:
            wait_for(
                "the worker",
                lambda: (
                    [each["status"] for each in api.post("work_pools/pixelmill/workers/filter")] == ["ONLINE"]
                ),
            )
        finally:
            process.kill()


@pytest.mark.xdist_group("installation")
def test_the_folder_for_the_images_has_what_they_copy(
    environment: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    block = blocks(PAGE, "bash")[1]
    lines = [line for line in block.splitlines() if not line.startswith("docker ")]
    assert [line.split()[0] for line in lines] == ["pip", "pixelmill"]
    folder = tmp_path / "checkout"
    subprocess.run(["cp", "-a", str(checkout), str(folder)], check=True)
    run_lines("\n".join(lines), folder, environment)
    for words in (line.split() for line in block.splitlines() if line.startswith("docker ")):
        file = folder / words[words.index("--file") + 1]
        assert file.is_file()
        copied = re.findall(r"^COPY (?!--from)(.*) \S+$", file.read_text(), re.MULTILINE)
        for pattern in " ".join(copied).split():
            assert list((folder / "image").glob(pattern)), (file.name, pattern)
