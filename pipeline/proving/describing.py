"""The README of a bundle, from what the bundle's other files say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json
from pipeline.config import ImageSpec
from pipeline.engines import ENGINES
from pipeline.errors import RequestError
from pipeline.evaluation import METRICS_FILE
from pipeline.evaluation.summary import escape_markdown
from pipeline.export import (
    LABELS_FILE,
    ONNX_FILES,
    PARITY_FILE,
    PREPROCESSING_FILE,
    README_FILE,
)
from pipeline.export.parity import FileDifference, Parity
from pipeline.export.readme import HeldOutResults, ReadmeFacts, render_readme
from pipeline.export.web import WEB_FOLDER


def write_readme(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `README.md`, once the other files are there.

    Args:
        folder: Of the bundle.
        facts: What its manifest says.

    Raises:
        RequestError: `parity.json` is not as this version writes it.
    """
    test, proof = read_json(folder / METRICS_FILE)["test"], read_json(folder / PARITY_FILE)
    known = test["accuracy"] is not None
    try:
        parity = _to_parity(proof)
        engines = tuple(_describe_engine(engine) for engine in proof["engines"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RequestError(
            f"{folder / PARITY_FILE}, which does not hold a proof as this version writes it",
            "a bundle that this version of pixelmill exported",
            "Export the model again.",
        ) from error
    readme = ReadmeFacts(
        name=facts["name"],
        version=facts["version"],
        image=ImageSpec.model_validate(read_json(folder / PREPROCESSING_FILE)["spec"]),
        class_names=tuple(read_json(folder / LABELS_FILE)),
        opset=facts["opset"],
        licence=facts["licence"],
        results=HeldOutResults(test["accuracy"], test["loss"], test["images"]) if known else None,
        parity=parity,
        engines=engines,
        variants=tuple(
            precision
            for precision, file in ONNX_FILES.items()
            if precision != "fp32" and (folder / file).is_file()
        ),
        web=(folder / WEB_FOLDER).is_dir(),
    )
    (folder / README_FILE).write_text(render_readme(readme), encoding="utf-8")


def _describe_engine(engine: Mapping[str, Any]) -> str:
    title = f"{ENGINES[engine['engine']].title} {engine['version']}"
    if engine["trouble"]:
        return f"{title} cannot run it: {escape_markdown(engine['trouble'])}"
    return f"{title}: the same labels, largest difference {engine['max_abs_difference']:.1e}"


def _to_parity(proof: Mapping[str, Any]) -> Parity:
    content = {name: value for name, value in proof.items() if name not in ("engines", "variants")}
    files = tuple(FileDifference(**file) for file in content.pop("files"))
    return Parity(**{**content, "batch_sizes": tuple(content["batch_sizes"])}, files=files)
