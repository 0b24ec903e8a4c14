"""The proof in a bundle: `parity.json`, and the report of the export."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pixelmill.pipeline.artifacts import read_json, write_json
from pixelmill.pipeline.bundles import PARITY_FILE, REPORT_FILE
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.evaluation.report.links import link_pages
from pixelmill.pipeline.export.engine_agreement import EngineAgreement
from pixelmill.pipeline.export.formats.agreement import FormatResult
from pixelmill.pipeline.export.parity import Parity
from pixelmill.pipeline.export.report import EXPORT_REPORT_FILE, render_export_report
from pixelmill.pipeline.export.variants import VariantResult


@dataclass(frozen=True)
class Proof:
    """The content of `parity.json`.

    Attributes:
        parity: The comparison of `model.onnx` with Keras.
        engines: That of other engines; empty for a recipe's model.
        variants: The comparison of the variants in lower precision with `model.onnx`.
        formats: That of the files in other formats; empty for bundles of earlier versions.
    """

    parity: Parity
    engines: tuple[EngineAgreement, ...] = ()
    variants: tuple[VariantResult, ...] = ()
    formats: tuple[FormatResult, ...] = ()


def write_proof(folder: Path, facts: Mapping[str, Any], proof: Proof) -> None:
    """Write `parity.json` and the report into a bundle's folder, before its manifest.

    Args:
        folder: The bundle's folder.
        facts: The content of its manifest, of which the title consists.
        proof: The comparisons.
    """
    content = asdict(proof)
    write_json(folder / PARITY_FILE, finite({**content.pop("parity"), **content}))
    title = f"{facts['name']}, version {facts['version']}"
    page = render_export_report(title, proof.parity, proof.variants, proof.formats)
    (folder / EXPORT_REPORT_FILE).parent.mkdir(exist_ok=True)
    (folder / EXPORT_REPORT_FILE).write_text(page, encoding="utf-8")
    link_pages((folder / REPORT_FILE).parent)


def read_proof(folder: Path) -> Proof:
    """Read a bundle's `parity.json`.

    Raises:
        RequestError: It does not have this version's format.
    """
    content = read_json(folder / PARITY_FILE)
    try:
        # Other comparisons lie beside the fields of the parity.
        return TypeAdapter(Proof).validate_python({**content, "parity": content})
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"{folder / PARITY_FILE}, which another version of pixelmill wrote",
            "a bundle exported by this version",
            "Export the model again.",
        ) from error


def finite(value: Any) -> Any:
    """A copy for JSON, with None in place of infinity and NaN."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
