"""The summary of an evaluation on the page of the flow run."""

from pathlib import Path

from pixelmill.pipeline.artifacts import read_json, write_json
from pixelmill.pipeline.bundles import METRICS_FILE, ModelBundle
from pixelmill.pipeline.evaluation import Evaluation
from pixelmill.pipeline.evaluation.summary import summarize_evaluation, tabulate_classes


def test_the_summary_shows_intervals_and_slices_as_text(bundle: ModelBundle, tmp_path: Path) -> None:
    metrics = read_json(bundle.folder / METRICS_FILE)
    slices = [
        {"value": value, "images": 40, "accuracy": 0.5, "accuracy_interval": [0.35, 0.65], "p_value": 0.01}
        for value in ("<b>night</b>", "day")
    ]
    slices[0]["is_below"], slices[1]["is_below"] = True, False
    write_json(tmp_path / METRICS_FILE, {**metrics, "slices": [{"property": "camera", "slices": slices}]})
    evaluation = Evaluation(tmp_path, tmp_path / "p.npy", 359, metrics["test"]["loss"], 0.99)
    row = metrics["classes"][0]
    assert tabulate_classes(evaluation)[0] == {
        "name": row["name"],
        "precision": round(row["precision"], 4),
        "precision_interval": "{:.4f} to {:.4f}".format(*row["precision_interval"]),
        "recall": round(row["recall"], 4),
        "recall_interval": "{:.4f} to {:.4f}".format(*row["recall_interval"]),
        "f1": round(row["f1"], 4),
        "f1_interval": "{:.4f} to {:.4f}".format(*row["f1_interval"]),
        "images": row["images"],
        "predictions": row["predictions"],
    }
    summary = summarize_evaluation(evaluation)
    assert "&#60;b&#62;night&#60;&#47;b&#62;: accuracy 0.5000 (95% interval 0.3500 to 0.6500)" in summary
    assert "<b>" not in summary
    assert "day" not in summary
    assert f"| calibration error | {metrics['test']['calibration_error']:.4f} | |" in summary
