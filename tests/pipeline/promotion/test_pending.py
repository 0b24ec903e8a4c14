"""Versions that were registered by a killed run and never judged."""

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
from pixelmill.pipeline.promotion import Promotion, TestImages, VersionRefused, promote_bundle
from pixelmill.pipeline.promotion.pending import judge_pending
from pixelmill.pipeline.registry import (
    aliases_of,
    list_models,
    pending_versions,
    promote_version,
    register_bundle,
    reserve_version,
)
from tests.pipeline.promotion.versions import register, write_images, write_version

ROOT = Path(__file__).parents[3]


LABELS = [0, 1, 2] * 40


def judge_versions(store: Path, bundle: ModelBundle, promotion: PromotionSpec, test: TestImages) -> Promotion:
    judge_pending(store, bundle, promotion, test)
    return promote_bundle(store, bundle, promotion, test)


def with_accuracy(right: int) -> list[int]:
    """Predictions that are right for so many of 120 images."""
    return [label if row < right else (label + 1) % 3 for row, label in enumerate(LABELS)]


def pending(store: Path, right: int = 100, name: str = "pets") -> ModelBundle:
    """Register a version that is right for so many of 120 images."""
    return register(store, with_accuracy(right), name=name)


@pytest.fixture
def test_images(tmp_path: Path) -> TestImages:
    return write_images(tmp_path / "images", LABELS)


def history(store: Path) -> dict[str, int]:
    return aliases_of(store, "digits")


def test_a_judged_version_is_no_longer_pending(tmp_path: Path, test_images: TestImages) -> None:
    first = pending(tmp_path)
    assert pending_versions(tmp_path, "pets") == [1]
    judge_versions(tmp_path, first, PromotionSpec(), test_images)
    assert pending_versions(tmp_path, "pets") == []
    second = pending(tmp_path, 20)
    with pytest.raises(VersionRefused):
        judge_versions(tmp_path, second, PromotionSpec(), test_images)
    assert pending_versions(tmp_path, "pets") == []
    pending(tmp_path)
    promote_version(tmp_path, "pets", 3, "champion")
    assert pending_versions(tmp_path, "pets") == [], "a person has decided"


def test_versions_that_were_never_judged_are_judged_in_their_order(
    tmp_path: Path, test_images: TestImages
) -> None:
    judge_versions(tmp_path, pending(tmp_path, 80), PromotionSpec(), test_images)
    for right in (115, 50):
        pending(tmp_path, right)
    new = pending(tmp_path, 90)
    # Worse than version 2, which nobody had judged; it would pass if compared with version 1.
    with pytest.raises(VersionRefused, match=r"pets@2 \(champion\) has 0\.9583"):
        judge_versions(tmp_path, new, PromotionSpec(), test_images)
    assert aliases_of(tmp_path, "pets") == {"champion": 2}
    assert pending_versions(tmp_path, "pets") == []


def test_an_alias_does_not_move_back_to_an_earlier_version(tmp_path: Path, test_images: TestImages) -> None:
    pending(tmp_path)
    pending(tmp_path)
    promote_version(tmp_path, "pets", 2, "champion")
    promotion = judge_versions(tmp_path, pending(tmp_path), PromotionSpec(), test_images)
    assert promotion.replaced == 2
    assert pending_versions(tmp_path, "pets") == []


def test_a_damaged_pending_version_does_not_block_others(
    tmp_path: Path, test_images: TestImages, caplog: pytest.LogCaptureFixture
) -> None:
    pending(tmp_path)
    path = tmp_path / "models/pets/1" / ONNX_FILE
    path.write_bytes(path.read_bytes().replace(b"lookup", b"LOOKUP"))
    with caplog.at_level(logging.WARNING):
        assert judge_versions(tmp_path, pending(tmp_path), PromotionSpec(), test_images).version == 2
    assert "pets@1 is not promoted" in caplog.text
    assert pending_versions(tmp_path, "pets") == []


def test_a_run_of_another_model_judges_no_pending_version(tmp_path: Path, test_images: TestImages) -> None:
    pending(tmp_path, name="birds")
    judge_versions(tmp_path, pending(tmp_path), PromotionSpec(), test_images)
    assert pending_versions(tmp_path, "birds") == [1]


def kill_at_steps(folder: Path, stride: int) -> None:
    """Register and promote again and again, killed some steps later every time, until a round is done."""
    for step in itertools.count(step=stride):
        store = folder / f"{step:04d}"
        made = write_version(store, with_accuracy(100), reserve_version(store, "pets"))
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
            # Judging itself only reads, and starts processes that would count as steps.
            register_bundle(store, made)
            promote_version(store, "pets", made.version, "champion", replacing=0)
            os._exit(0)
        _, status = os.waitpid(run, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return
        assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_step_leaves_no_version_that_is_never_judged(
    tmp_path: Path, test_images: TestImages, stride: int
) -> None:
    call = (
        f"import pathlib, sys; from {__name__} import kill_at_steps; "
        f"kill_at_steps(pathlib.Path(sys.argv[1]), {stride})"
    )
    stores = tmp_path / "stores"
    done = subprocess.run(
        [sys.executable, "-c", call, str(stores)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = set()
    for store in sorted(stores.iterdir()):
        registered = [entry.version for entry in list_models(store)]
        promoted = list(aliases_of(store, "pets").values())
        left = pending_versions(store, "pets")
        assert registered in ([], [1])
        assert set(registered) == {*promoted, *left}, store
        state = (bool(registered), bool(promoted), bool(left))
        if state not in seen:
            new = pending(store)
            judge_versions(store, new, PromotionSpec(), test_images)
            assert aliases_of(store, "pets") == {"champion": new.version}
            assert pending_versions(store, "pets") == []
        seen.add(state)
    assert seen == {
        (False, False, False),
        (True, False, True),
        (True, True, True),  # Promoted, and killed before that was noted: judged once more.
        (True, True, False),
    }
