"""`pixelmill models log` and `promote`, as a user runs them."""

import json
from pathlib import Path

import numpy as np

from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.registry.checks import PermanentCheck, add_checks
from tests.conftest import Run
from tests.pipeline.promotion.versions import register


def test_the_log_shows_every_move_as_text_and_as_lines_of_json(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        register(tmp_path, [0, 1, 2])
    assert run("models", "promote", "pets@1", "--store", tmp_path).code == 0
    assert run("models", "promote", "pets@2", "--reason", "of\x1b[31m summer", "--store", tmp_path).code == 0
    assert run("models", "rollback", "pets", "--store", tmp_path).code == 0
    lines = run("models", "log", "pets", "--store", tmp_path, "--json").output.splitlines()
    entries = [json.loads(line) for line in lines]
    assert [(entry["action"], entry["from"], entry["to"]) for entry in entries] == [
        ("promoted", None, 1),
        ("promoted", 1, 2),
        ("rolled back", 2, 1),
    ]
    assert entries[1]["reason"] == "of\x1b[31m summer"
    text = run("models", "log", "pets", "--store", tmp_path).output
    assert "promoted    1 -> 2" in text
    assert "\x1b" not in text
    unknown = run("models", "log", "dogs", "--store", tmp_path)
    assert unknown.code == 2
    assert "no model 'dogs'" in unknown.last_error


def test_a_version_that_gets_a_corrected_image_wrong_needs_force_and_a_reason(
    run: Run, tmp_path: Path
) -> None:
    register(tmp_path, [0, 1, 2])
    image = encode_png(np.array([[[0], [1]]], np.uint8))
    check = PermanentCheck(
        sha256="0" * 64, label="fish", file=f"{'0' * 64}.png", name="b\x1b[31m.png", origin=""
    )
    add_checks(tmp_path, "pets", {check.sha256: check}, lambda _: image, "a test")
    promote = ("models", "promote", "pets@1", "--store", tmp_path)
    refused = run(*promote)
    assert refused.code == 3
    assert "pets@1 gets 1 of 1 corrected images wrong" in refused.last_error
    assert "(fish, predicted dog)" in refused.last_error
    assert "\x1b" not in refused.errors
    assert '`pixelmill models promote pets@1 --force --reason "..."`' in refused.last_error
    assert run(*promote, "--force").code == 2
    assert run(*promote, "--force", "--reason", "the camera is gone").code == 0
    assert "the camera is gone" in run("models", "log", "pets", "--store", tmp_path).output
