"""A short summary of an evaluation, for terminals and pages that cannot show the full report."""

from typing import Any

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import METRICS_FILE
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.evaluation import Evaluation

Cell = str | int | float
_MAX_NAMED = 5
_MAX_PAIRS = 50


def tabulate_classes(evaluation: Evaluation) -> list[dict[str, Cell]]:
    """One row per class: precision, recall and F1 with their intervals as text, images and predictions."""
    classes = read_json(evaluation.folder / METRICS_FILE)["classes"]
    return [{name: _cell(value) for name, value in row.items()} for row in classes]


def describe_accuracy(test: dict[str, Any]) -> str:
    """Describe accuracy and loss on the test images; `test` is the section of that name in `metrics.json`."""
    interval = f" ({_interval(test['accuracy_interval'])})" if "accuracy_interval" in test else ""
    loss = "" if test["loss"] is None else f", loss {test['loss']:.4f}"
    return f"{test['accuracy']:.4f}{interval} on {test['images']:,} images{loss}"


def describe_balance(test: dict[str, Any]) -> str:
    """Compare the balanced accuracy with the share of the largest class; empty if it is not known."""
    if "balanced_accuracy" not in test:
        return ""
    largest, never = test["largest_class"], test["never_predicted"]
    return (
        f"{test['balanced_accuracy']:.4f} ({_interval(test['balanced_accuracy_interval'])}); "
        f"{printable(largest['name'])}, the largest class, is {largest['share']:.1%} of the images"
        + (f"; never predicted: {name_some(never)}" if never else "")
    )


def name_some(names: list[str] | tuple[str, ...]) -> str:
    """The first few class names, printable, and the number of the others."""
    rest = len(names) - _MAX_NAMED
    return ", ".join(map(printable, names[:_MAX_NAMED])) + (f" and {rest:,} more" if rest > 0 else "")


def summarize_evaluation(evaluation: Evaluation) -> str:
    """Markdown with the metrics, the confusion matrix or most frequent mistakes, and the report's path."""
    metrics = read_json(evaluation.folder / METRICS_FILE)
    test = metrics["test"]
    return "\n".join(
        [
            "| | test | validation |",
            "|---|---|---|",
            *(
                f"| {title} | {test[title]:.4f} | {metrics['validation'][title]:.4f} |"
                for title in ("accuracy", "loss")
            ),
            f"| 95% interval of the accuracy | {_ends(test['accuracy_interval'])} | |",
            f"| balanced accuracy | {test['balanced_accuracy']:.4f} | |",
            f"| its 95% interval | {_ends(test['balanced_accuracy_interval'])} | |",
            f"| calibration error | {test['calibration_error']:.4f} | |",
            f"| its 95% interval | {_ends(test['calibration_error_interval'])} | |",
            f"| share of the largest class, {escape_markdown(test['largest_class']['name'])} "
            f"| {test['largest_class']['share']:.4f} | |",
            "",
            f"{evaluation.images:,} test images, {metrics['parameters']:,} parameters, "
            f"{metrics['training']['epochs']} epochs in {metrics['training']['seconds']:.0f} s "
            f"on {metrics['training']['device']}.",
            "",
            *_never_predicted(test["never_predicted"]),
            *_below(metrics["slices"]),
            *_confusion(metrics),
            "",
            f"Full report: `{evaluation.report_path.resolve()}`",
        ]
    )


def escape_markdown(name: str) -> str:
    """Escape a class name so that it is not interpreted as Markdown or HTML."""
    return "".join(letter if letter.isalnum() else f"&#{ord(letter)};" for letter in printable(name))


def _never_predicted(names: list[str]) -> list[str]:
    if not names:
        return []
    some = ", ".join(map(escape_markdown, names[:_MAX_NAMED]))
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return [f"**Never predicted: {some}{more}**", ""]


def _below(groups: list[dict[str, Any]]) -> list[str]:
    """The slices that are less accurate than the other test images."""
    found = [
        f"- {escape_markdown(group['property'])} {escape_markdown(each['value'])}: accuracy "
        f"{each['accuracy']:.4f} ({_interval(each['accuracy_interval'])}) on {each['images']:,} images"
        for group in groups
        for each in group["slices"]
        if each["is_below"]
    ]
    return ["Less accurate than the other test images:", "", *found, ""] if found else []


def _confusion(metrics: dict[str, Any]) -> list[str]:
    if metrics["confusion_matrix"] is None:
        return [
            "The most frequent mistakes:",
            "",
            "| true class | predicted | images |",
            "|---|---|---|",
            *(
                f"| {' | '.join(escape_markdown(str(cell)) for cell in pair.values())} |"
                for pair in metrics["confused_pairs"][:_MAX_PAIRS]
            ),
        ]
    names = [escape_markdown(row["name"]) for row in metrics["classes"]]
    return [
        "Rows are true classes, columns are predictions:",
        "",
        f"| | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
        *(
            f"| **{name}** | {' | '.join(map(str, counts))} |"
            for name, counts in zip(names, metrics["confusion_matrix"], strict=True)
        ),
    ]


def _cell(value: Cell | list[float]) -> Cell:
    if isinstance(value, list):
        return _ends(value)
    return round(value, 4) if isinstance(value, float) else value


def _interval(ends: list[float]) -> str:
    return f"95% interval {_ends(ends)}"


def _ends(ends: list[float]) -> str:
    return f"{ends[0]:.4f} to {ends[1]:.4f}"
