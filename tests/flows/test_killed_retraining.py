"""`pixelmill retrain` killed between registration and promotion, and the next run."""

import os
import re
import signal
from pathlib import Path

import pytest
from filelock import FileLock

from pixelmill.pipeline.registry import aliases_of, pending_versions
from tests.conftest import PIXELMILL, Run, start_interruptible


@pytest.mark.slow
def test_the_next_run_judges_the_version_that_a_killed_run_registered(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    settings = ["--store", str(store), "--set", "training.epochs=4", "--set", "promotion.min_accuracy=0"]
    models = store / "models/digits"
    models.mkdir(parents=True)
    # The alias cannot move while another process holds its lock.
    with FileLock(models / ".aliases.lock"):
        process = start_interruptible([str(PIXELMILL), "retrain", "digits", *settings], environment)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("register"):
                break
        # The whole process group, which includes the server that was started for the command.
        os.killpg(process.pid, signal.SIGKILL)
        process.stderr.read()
        assert process.wait() == -signal.SIGKILL
    assert aliases_of(store, "digits") == {}
    assert pending_versions(store, "digits") == [1]
    (killed,) = (store / "runs").iterdir()
    result = run("retrain", "digits", *settings)
    assert result.code == 0, result.errors
    assert "judging digits@1, which was registered by an interrupted run" in result.errors
    assert aliases_of(store, "digits") == {"champion": 2}
    assert re.search(r'"champion":\s*\[\s*1\s*\]', (store / "models/digits/aliases.json").read_text())
    assert pending_versions(store, "digits") == []
    # Its model is registered, so its results are kept; the marker of the running process is removed.
    assert (killed / "evaluation/metrics.json").is_file()
    assert not list(store.rglob("*.pixelmill-tmp"))
    assert not list(store.rglob(".owner"))
