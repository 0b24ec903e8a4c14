"""`pixelmill models log`, as a user runs it."""

import json
from pathlib import Path

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
