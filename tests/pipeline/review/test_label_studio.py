"""Tasks for Label Studio, and the corrections in what it exports."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pixelmill.pipeline.datasets.corrections import read_corrections
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.review import ChosenImage, Picture, Row
from pixelmill.pipeline.review.label_studio import config_of, corrections_of, read_export, tasks_of

NAMES = ("cat", 'a "dog" & <b>', "bird")
IMAGES = [
    ChosenImage(
        Row(f"=cat/{number}.png", f"{number:064x}", "cat", 0, 0.75),
        Picture(0, b"", "PNG", 8, 8),
        {"uncertain": "cat has 0.750"},
        f"images/{number:064x}.png",
    )
    for number in range(4)
]


def annotation(label: str, who: Any = 7, cancelled: bool = False) -> dict[str, Any]:
    value = {"choices": [label]}
    result = {"from_name": "label", "to_name": "image", "type": "choices", "value": value, "id": "x"}
    return {
        "id": 1,
        "completed_by": who,
        "result": [] if cancelled else [result],
        "was_cancelled": cancelled,
        "updated_at": "2026-11-29T08:00:00.000000Z",
    }


def exported(folder: Path, *annotations: list[dict[str, Any]]) -> Path:
    """What Label Studio exports for the tasks, which it gets as JSON."""
    tasks = json.loads(json.dumps(tasks_of("review", "pets@3", IMAGES)))
    found = [{**task, "id": at, "annotations": annotations[at]} for at, task in enumerate(tasks)]
    path = folder / "export.json"
    path.write_text(json.dumps(found))
    return path


def test_tasks_name_the_copy_and_hold_the_prediction() -> None:
    (first, *_) = tasks_of("my review", "pets@3", IMAGES)
    assert first["data"]["image"] == f"/data/local-files/?d=my%20review/images/{0:064x}.png"
    assert first["data"]["sha256"] == f"{0:064x}"
    (prediction,) = first["predictions"]
    assert prediction["model_version"] == "pets@3"
    assert prediction["result"][0]["value"] == {"choices": ["cat"]}


def test_the_configuration_offers_every_class_and_exclude() -> None:
    root = ElementTree.fromstring(config_of(NAMES))
    assert [choice.get("value") for choice in root.iter("Choice")] == [*NAMES, "exclude"]
    assert [choice.get("hotkey") for choice in root.iter("Choice")] == ["1", "2", "3", "4"]
    config_of([str(number) for number in range(100)])


def test_answers_become_corrections(tmp_path: Path) -> None:
    path = exported(
        tmp_path,
        [annotation(NAMES[1], {"id": 7, "email": "ada@example.org"})],
        [annotation("bird", cancelled=True)],
        [annotation("cat"), annotation("bird", 8)],
        [annotation("exclude"), annotation("exclude", 8)],
    )
    answers = read_export(path)
    assert answers.disagreements == ("=cat/2.png",)
    assert answers.unanswered == 1
    (tmp_path / "corrections.csv").write_text(corrections_of(answers.answers))
    found = read_corrections(str(tmp_path / "corrections.csv")).by_sha256
    assert {sha256: row.label for sha256, row in found.items()} == {
        f"{0:064x}": NAMES[1],
        f"{3:064x}": "exclude",
    }
    assert found[f"{0:064x}"].who == "ada@example.org"
    assert found[f"{0:064x}"].path == "./=cat/0.png"


def test_the_shorter_export_is_read_as_well(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "image": "x", "sha256": f"{1:064x}", "path": "a.png", "label": "bird", "annotator": 1},
        {"id": 2, "image": "x", "sha256": f"{2:064x}", "path": "b.png"},
    ]
    (tmp_path / "min.json").write_text(json.dumps(rows))
    answers = read_export(tmp_path / "min.json")
    assert [(answer.sha256, answer.label) for answer in answers.answers] == [(f"{1:064x}", "bird")]
    assert answers.unanswered == 1


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"data": {"image": "x"}}]', '[{"image": "x"}]'])
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(RequestError, match="is no export of a review"):
        read_export(tmp_path / "other.json")
    with pytest.raises(RequestError, match="does not exist"):
        read_export(tmp_path / "none.json")
