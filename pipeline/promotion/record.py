"""The gate in the version's own files: `metrics.json` and the page `report/gate.html`."""

import json
from pathlib import Path

from pixelmill.pipeline.artifacts import add_files, read_json
from pixelmill.pipeline.bundles import GATE_REPORT_FILE, METRICS_FILE, REPORT_FILE, ModelBundle
from pixelmill.pipeline.evaluation.report.links import with_links
from pixelmill.pipeline.promotion.judgement import Judgement
from pixelmill.pipeline.promotion.page import render_gate


def record_judgement(bundle: ModelBundle, judgement: Judgement) -> None:
    """Add a judgement to the files of a bundle that is not registered yet, and seal it again.

    Args:
        bundle: The exported bundle in the folder of its run.
        judgement: How it was judged.
    """
    facts = judgement.to_json()
    del facts["version"]
    metrics = {**read_json(bundle.folder / METRICS_FILE), **facts}
    texts = {METRICS_FILE: json.dumps(metrics, indent=2) + "\n", GATE_REPORT_FILE: render_gate(judgement)}
    report = bundle.folder / REPORT_FILE
    if report.is_file():
        pages = {path.name for path in report.parent.iterdir()} | {Path(GATE_REPORT_FILE).name}
        texts[REPORT_FILE] = with_links(report.read_text(encoding="utf-8"), pages)
    add_files(bundle.folder, texts)
