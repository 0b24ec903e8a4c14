"""Fixtures and functions shared by many tests: the installed command, and a store with a trained model."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser

from pixelmill.pipeline.artifacts import MANIFEST, describe_files, read_json, write_json
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.registry import find_bundle
from tests.browsers import find_chromium, headless_chromium

PIXELMILL = Path(sys.executable).with_name("pixelmill")
# On a machine that is busy with other tests, slow examples are no sign of a bad strategy.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
EPOCHS = 6


@dataclass(frozen=True)
class CommandResult:
    """The exit code and the output of a finished command."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)

    @property
    def last_error(self) -> str:
        return self.errors.strip().splitlines()[-1] if self.errors.strip() else ""


Run = Callable[..., CommandResult]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests, and check that tests which share an expensive fixture run in the same worker."""
    for item in items:
        if getattr(config.option, "loadgroup", False) and item.get_closest_marker("xdist_group"):
            assert "@" in item.nodeid, "this pytest-xdist does not group tests with this pytest"
    items.sort(key=_turn)
    first = next((item for item in items if _needs_store(item)), None)
    if first:
        items.remove(first)
        items.insert(0, first)


def _turn(item: pytest.Item) -> tuple[bool, bool]:
    """Groups come first, because they take long; tests without the store run while one worker trains it."""
    return item.get_closest_marker("xdist_group") is None, _needs_store(item)


def _needs_store(item: pytest.Item) -> bool:
    return "trained_store" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The user's environment with a separate Prefect home and no Prefect server."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "PIXELMILL_"))}
    return {**kept, "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))}


@pytest.fixture(scope="session")
def run(environment: dict[str, str]) -> Run:
    """Run the installed `pixelmill` command in a separate process."""

    def call(*arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> CommandResult:
        done = subprocess.run(
            [str(PIXELMILL), *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**environment, **(env or {})},
            timeout=280,
            check=False,
        )
        return CommandResult(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def trained_store(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A store with `digits@1`, trained, exported and promoted by the real command; must not be modified."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    store = shared / "trained-store"
    with FileLock(shared / "trained-store.lock"):
        if not (store / "models/digits/aliases.json").is_file():
            result = run(
                "retrain", "digits", "--store", store, "--set", f"training.epochs={EPOCHS}", "--json"
            )
            assert result.code == 0, result.errors
    return store


@pytest.fixture(scope="session")
def bundle(trained_store: Path) -> ModelBundle:
    """The bundle of `digits@1`: images of 8 x 8 grey pixels, ten classes."""
    return find_bundle(trained_store, "digits@1")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium of the system, restricted to loopback."""
    if find_chromium() is None:
        pytest.skip("no Chromium here; install the packages in .ci/apt-packages.txt")
    with headless_chromium() as running:
        yield running


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The npm packages that `make test` installs, for tests that run Node.js."""
    folder = Path(__file__).with_name("javascript") / "node_modules"
    if not folder.is_dir() or shutil.which("node") is None:
        pytest.skip("no npm packages here; install Node.js with npm 18 or later, and run `make test`")
    return folder


def write_images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write different small grey PNG files with sorted names."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    paths = []
    for index in range(count):
        path = folder / f"{index:05d}.png"
        path.write_bytes(encode_png(random.integers(0, 256, (8, 8, 1), np.uint8)))
        paths.append(path)
    return paths


def on_small_disk(
    command: list[str], disk: Path, size: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command with a small disk: a file system in memory that only this command sees."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not permitted here; allow unprivileged user namespaces")
    disk.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o size={size} tmpfs {disk} && exec "$@"'
    return subprocess.run(
        [*unshare, "sh", "-c", script, "sh", *command],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def start_interruptible(
    command: list[str], environment: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    """Start a command like a terminal: in its own process group, and without ignoring Ctrl-C."""
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        # If the tests run in the background, Ctrl-C is ignored, which child processes inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def update_manifest(folder: Path) -> None:
    """Update the hashes and sizes in the manifest of an artifact after its files were changed."""
    write_json(folder / MANIFEST, {**read_json(folder / MANIFEST), "files": describe_files(folder)})
