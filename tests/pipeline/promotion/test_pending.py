"""Versions that a killed run registered, so that they were not judged."""

import itertools
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pixelmill.pipeline.bundles import ONNX_FILE, ModelBundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.promotion import Promotion, promote_bundle
from pixelmill.pipeline.promotion.pending import judge_versions
from pixelmill.pipeline.registry import (
    aliases_of,
    list_models,
    pending_versions,
    promote_version,
    register_bundle,
    reserve_version,
)
from tests.pipeline.registry.bundles import register, write_bundle

ROOT = Path(__file__).parents[3]


def judge(store: Path, bundle: ModelBundle, **limits: float) -> Promotion:
    return judge_versions(store, bundle, PromotionSpec.model_validate(limits))


def history(store: Path) -> dict[str, int]:
    return aliases_of(store, "digits")


def test_a_judged_version_is_no_longer_pending(tmp_path: Path) -> None:
    first = register(tmp_path)
    assert pending_versions(tmp_path, "digits") == [1]
    judge(tmp_path, first)
    assert pending_versions(tmp_path, "digits") == []
    second = register(tmp_path, accuracy=0.1)
    with pytest.raises(GateRefused):
        judge(tmp_path, second)
    assert pending_versions(tmp_path, "digits") == []
    register(tmp_path)
    promote_version(tmp_path, "digits", 3, "champion")
    assert pending_versions(tmp_path, "digits") == [], "a person has decided"


def test_unjudged_versions_are_judged_in_order(tmp_path: Path) -> None:
    judge(tmp_path, register(tmp_path, accuracy=0.80))
    for accuracy in (0.90, 0.50):
        register(tmp_path, accuracy=accuracy)
    new = register(tmp_path, accuracy=0.85)
    # Worse than version 2, which was not judged; it would pass if compared with version 1.
    with pytest.raises(GateRefused, match=r"0\.9000 of digits@2"):
        judge(tmp_path, new)
    assert history(tmp_path) == {"champion": 2}
    assert pending_versions(tmp_path, "digits") == []


def test_an_alias_does_not_move_back_to_an_earlier_version(tmp_path: Path) -> None:
    register(tmp_path, accuracy=0.9)
    register(tmp_path, accuracy=0.9)
    promote_version(tmp_path, "digits", 2, "champion")
    assert judge(tmp_path, register(tmp_path, accuracy=0.9)).replaced == 2
    assert pending_versions(tmp_path, "digits") == []


def test_a_damaged_pending_version_does_not_block_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(tmp_path)
    path = tmp_path / "models/digits/1" / ONNX_FILE
    path.write_bytes(path.read_bytes().replace(b"network", b"Network"))
    with caplog.at_level(logging.WARNING):
        assert judge(tmp_path, register(tmp_path)).version == 2
    assert "digits@1 is not promoted" in caplog.text
    assert pending_versions(tmp_path, "digits") == []


def test_a_run_of_another_model_does_not_judge_pending_versions(tmp_path: Path) -> None:
    register(tmp_path, name="mnist")
    judge(tmp_path, register(tmp_path))
    assert pending_versions(tmp_path, "mnist") == [1]


def kill_at_every_step(folder: Path) -> None:
    """Register and promote repeatedly, killed one step later each time, until a round completes."""
    for step in itertools.count():
        store = folder / f"{step:04d}"
        made = write_bundle(store / "run/bundle", "digits", reserve_version(store, "digits"), 0.9)
        run = os.fork()
        if run == 0:
            left = step

            def die_here(event: str, arguments: Any) -> None:
                nonlocal left
                if event in ("open", "fcntl.flock") or event.startswith(("os.", "shutil.")):
                    left -= 1
                    if left < 0:
                        signal.raise_signal(signal.SIGKILL)

            sys.addaudithook(die_here)
            promote_bundle(store, register_bundle(store, made), PromotionSpec())
            os._exit(0)
        _, status = os.waitpid(run, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return
        assert os.WTERMSIG(status) == signal.SIGKILL


def test_a_version_is_judged_whenever_its_run_is_killed(tmp_path: Path) -> None:
    call = (
        f"import pathlib, sys; from {__name__} import kill_at_every_step as f; f(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", call, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = set()
    for store in sorted(tmp_path.iterdir()):
        registered = [entry.version for entry in list_models(store)]
        promoted = list(history(store).values())
        pending = pending_versions(store, "digits")
        assert registered in ([], [1])
        assert set(registered) == {*promoted, *pending}, store
        seen.add((bool(registered), bool(promoted), bool(pending)))
        new = register(store)
        judge(store, new)
        assert history(store) == {"champion": new.version}
        assert pending_versions(store, "digits") == []
    assert seen == {
        (False, False, False),
        (True, False, True),
        (True, True, True),  # Promoted, and killed before that was noted: judged again.
        (True, True, False),
    }
