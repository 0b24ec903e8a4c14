"""Tasks for Label Studio, and the corrections in what it exports.

The formats are those of https://labelstud.io/guide/task_format and https://labelstud.io/guide/export.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.datasets.corrections import EXCLUDE
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.review import ChosenImage

_IMAGE, _LABEL = "image", "label"
_HEADER = ("sha256", "path", "label", "who", "when")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_KEYS = "1234567890"


class Answer(NamedTuple):
    """One answer of one person: the row of a correction."""

    sha256: str
    path: str
    label: str
    who: str
    when: str


@dataclass(frozen=True)
class ExportedAnswers:
    """The answers in an export.

    Attributes:
        answers: One for each image.
        disagreements: The paths of images that people gave different classes.
        unanswered: Number of tasks without an answer.
    """

    answers: tuple[Answer, ...]
    disagreements: tuple[str, ...]
    unanswered: int


def tasks_of(folder: str, model: str, images: Sequence[ChosenImage]) -> list[dict[str, Any]]:
    """The tasks of images, each with the prediction of the model.

    Args:
        folder: The name of the folder of the images, directly below Label Studio's document root.
        model: The model, `name@version`.
        images: The images.
    """
    return [
        {
            "data": {
                _IMAGE: f"/data/local-files/?d={quote(f'{folder}/{image.image}')}",
                "sha256": image.row.sha256,
                "path": image.row.path,
                "reasons": "; ".join(image.reasons.values()),
            },
            "predictions": [
                {
                    "model_version": model,
                    "score": image.row.probability,
                    "result": [_choice(image.row.label)],
                }
            ],
        }
        for image in images
    ]


def config_of(class_names: Sequence[str]) -> str:
    """The labelling configuration: one class for each image, or `exclude`."""
    choices = "\n".join(
        f"    <Choice value={quoteattr(name)}{f' hotkey={quoteattr(key)}' if key else ''}/>"
        for name, key in zip((*class_names, EXCLUDE), (*_KEYS, *[""] * (len(class_names) + 1)), strict=False)
    )
    return (
        "<View>\n"
        f'  <Image name="{_IMAGE}" value="${_IMAGE}" zoom="true"/>\n'
        '  <Text name="why" value="$reasons"/>\n'
        f'  <Choices name="{_LABEL}" toName="{_IMAGE}" choice="single" showInline="true">\n'
        f"{choices}\n"
        "  </Choices>\n"
        "</View>\n"
    )


def read_export(path: Path) -> ExportedAnswers:
    """Read what Label Studio exports as JSON or as JSON-MIN.

    Raises:
        RequestError: It cannot be read, or is not an export of tasks that pixelmill wrote.
    """
    if not path.is_file():
        raise RequestError(f"{path} does not exist", "a file that Label Studio exported", "Check the path.")
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise _not_an_export(path, "it holds no list of tasks")
    by_content: dict[str, list[Answer]] = {}
    unanswered = 0
    for number, task in enumerate(tasks, start=1):
        data = task.get("data", task)
        if not isinstance(data, dict) or not isinstance(data.get("sha256"), str):
            raise _not_an_export(path, f"task {number} has no `sha256`")
        found = list(_answers(task, data))
        unanswered += not found
        by_content.setdefault(data["sha256"], []).extend(found)
    given = {sha256: found for sha256, found in by_content.items() if found}
    agreed = [found for found in given.values() if len({answer.label for answer in found}) == 1]
    disagreed = [found for found in given.values() if len({answer.label for answer in found}) > 1]
    return ExportedAnswers(
        answers=tuple(found[-1] for found in agreed),
        disagreements=tuple(found[0].path for found in disagreed),
        unanswered=unanswered,
    )


def corrections_of(answers: Sequence[Answer]) -> str:
    """Answers as the CSV file that `dataset.corrections` names."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_HEADER)
    for answer in answers:
        # A spreadsheet would run a path that begins like a formula; the SHA-256 is what counts.
        path = f"./{answer.path}" if answer.path.startswith(_FORMULA) else answer.path
        rows.writerow(answer._replace(path=path, who=answer.who.lstrip("".join(_FORMULA))))
    return text.getvalue()


def _answers(task: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[Answer]:
    """The answers of one task; none of a task that was skipped."""
    path = str(data.get("path", ""))
    if "annotations" not in task:  # JSON-MIN
        for label in _labels(task.get(_LABEL)):
            who = str(task.get("annotator", ""))
            yield Answer(data["sha256"], path, label, who, str(task.get("updated_at", "")))
        return
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        who = annotation.get("completed_by", "")
        who = str(who.get("email", who.get("id", "")) if isinstance(who, dict) else who)
        for result in annotation.get("result", ()):
            if result.get("from_name") == _LABEL:
                for label in _labels(result.get("value")):
                    yield Answer(data["sha256"], path, label, who, str(annotation.get("updated_at", "")))


def _labels(value: Any) -> list[str]:
    """The classes in a value: a name, or an object with a list of them."""
    found = value.get("choices", []) if isinstance(value, dict) else [value]
    return [name for name in found if isinstance(name, str)]


def _choice(label: str) -> dict[str, Any]:
    return {"from_name": _LABEL, "to_name": _IMAGE, "type": "choices", "value": {"choices": [label]}}


def _not_an_export(path: Path, reason: str) -> RequestError:
    return RequestError(
        f"{printable(str(path))} is no export of a review ({reason})",
        "the JSON or JSON-MIN that Label Studio exports of the tasks of `pixelmill review`",
        "Export the project again, with the tasks that were imported.",
    )
