"""The gate in the version's own files: `metrics.json` and the page `report/gate.html`."""

import json

from pixelmill.pipeline.artifacts import add_files, read_json
from pixelmill.pipeline.bundles import GATE_REPORT_FILE, METRICS_FILE, ModelBundle
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
    add_files(bundle.folder, texts)
