"""An evaluation in a few lines, for pages that cannot show the whole report."""

from pipeline.artifacts import read_json
from pipeline.display import printable
from pipeline.evaluation import METRICS_FILE, Evaluation

Cell = str | int | float


def tabulate_classes(evaluation: Evaluation) -> list[dict[str, Cell]]:
    """A row a class: precision, recall, F1 and images."""
    classes = read_json(evaluation.folder / METRICS_FILE)["classes"]
    return [
        {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
        for row in classes
    ]


def summarize_evaluation(evaluation: Evaluation) -> str:
    """Markdown: the results, the confusion matrix, and where the report is."""
    metrics = read_json(evaluation.folder / METRICS_FILE)
    names = [escape_markdown(row["name"]) for row in metrics["classes"]]
    matrix = [
        f"| **{name}** | {' | '.join(map(str, counts))} |"
        for name, counts in zip(names, metrics["confusion_matrix"], strict=True)
    ]
    return "\n".join(
        [
            "| | test | validation |",
            "|---|---|---|",
            *(
                f"| {title} | {metrics['test'][title]:.4f} | {metrics['validation'][title]:.4f} |"
                for title in ("accuracy", "loss")
            ),
            "",
            f"{evaluation.images:,} test images, {metrics['parameters']:,} parameters, "
            f"{metrics['training']['epochs']} epochs in {metrics['training']['seconds']:.0f} s "
            f"on {metrics['training']['device']}.",
            "",
            "Rows are true classes, columns are answers:",
            "",
            f"| | {' | '.join(names)} |",
            f"|---|{'---|' * len(names)}",
            *matrix,
            "",
            f"The whole report: `{evaluation.report_path.resolve()}`",
        ]
    )


def escape_markdown(name: str) -> str:
    """A class name that cannot act as Markdown or HTML."""
    return "".join(letter if letter.isalnum() else f"&#{ord(letter)};" for letter in printable(name))
