"""`bom.cdx.json`: the bill of materials of a bundle, as CycloneDX 1.6 with a model card (an ML-BOM).

It is made of the content alone, without a time and with a serial number that is derived from the rest, so
that the same model exported twice gives the same bytes.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from pixelmill.pipeline.artifacts import canonical_json, installed_packages, sha256_of
from pixelmill.pipeline.bundles import BOM_FILE, ONNX_FILES
from pixelmill.pipeline.bundles.model_files import model_files
from pixelmill.pipeline.export.model_card import UNSPECIFIED, ModelCard

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_MODEL, _DATA = "model", "dataset"
# The metrics of the test images, and their names in the literature.
_METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "loss": "cross-entropy",
    "calibration_error": "expected calibration error",
}


def write_bill(folder: Path, card: ModelCard) -> None:
    """Write `bom.cdx.json` into the folder of a bundle, whose ONNX files are final."""
    content = _with_model_card(_list_components(folder, card), card)
    content.pop("serialNumber", None)
    content["metadata"].pop("timestamp", None)
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    content["serialNumber"] = f"urn:uuid:{uuid5(NAMESPACE_URL, digest)}"
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=True)
    (folder / BOM_FILE).write_text(text + "\n", encoding="utf-8")


def _list_components(folder: Path, card: ModelCard) -> dict[str, Any]:
    """The model, its variants, its data and the packages it was made with, as CycloneDX JSON."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    licences = [] if card.licence == UNSPECIFIED else [LicenseFactory().make_from_string(card.licence)]
    kind = ComponentType.MACHINE_LEARNING_MODEL

    def model_file(name: str, title: str, reference: str) -> "Component":
        return Component(
            name=title,
            version=str(card.version),
            type=kind,
            bom_ref=reference,
            hashes=[_sha256(sha256_of(folder / name))],
            licenses=licences,
        )

    files: dict[str, str] = {
        precision: name
        for precision, name in ONNX_FILES.items()
        if precision != "fp32" and (folder / name).is_file()
    }
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    # Triton's file is a copy of the model.
    others = [
        name
        for name, kind in model_files(names).items()
        if kind.format != "triton" and name not in ONNX_FILES.values()
    ]
    files |= {Path(name).name: name for name in others}
    model = model_file(ONNX_FILES["fp32"], card.name, _MODEL)
    packages = [
        Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            # The file that they made runs without them.
            scope=ComponentScope.EXCLUDED,
            bom_ref=f"package:{name}",
            purl=PackageURL("pypi", name=name, version=version),
        )
        for name, version in sorted(installed_packages().items())
    ]
    variants = [model_file(name, f"{card.name} ({kind})", f"{_MODEL}:{kind}") for kind, name in files.items()]
    bom = Bom(components=[*variants, *packages, *([_dataset(card)] if card.data else [])])
    bom.metadata.component = model
    bom.register_dependency(
        model, [*packages, *(each for each in bom.components if each.bom_ref.value == _DATA)]
    )
    content: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    return content


def _dataset(card: ModelCard) -> "Component":
    from cyclonedx.model.component import Component, ComponentType

    fingerprint = card.data.fingerprint if card.data else ""
    return Component(
        name=f"training data of {card.name}",
        type=ComponentType.DATA,
        bom_ref=_DATA,
        hashes=[_sha256(fingerprint)] if len(fingerprint) == 64 else [],
    )


def _sha256(value: str) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=value)


def _with_model_card(content: dict[str, Any], card: ModelCard) -> dict[str, Any]:
    """Add the parts of the format that the library has no types for: `modelCard`, and `data` of the data."""
    model = content["metadata"]["component"]
    model["modelCard"] = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "image classification",
            "modelArchitecture": f"{card.parameters:,} parameters",
            **({"datasets": [{"ref": _DATA}]} if card.data else {}),
            "inputs": [
                {"format": f"uint8 [batch, {card.image.height}, {card.image.width}, {card.image.channels}]"}
            ],
            "outputs": [{"format": f"float32 probabilities [batch, {len(card.class_names)}]"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": _metrics(card)},
        "considerations": _considerations(card),
    }
    for component in content.get("components", ()):
        if component["bom-ref"] == _DATA and card.data:
            counts = [{"name": f"images:{split}", "value": str(n)} for split, n in card.data.images.items()]
            component["data"] = [
                {
                    "type": "dataset",
                    "name": card.data.source,
                    **({"contents": {"properties": counts}} if counts else {}),
                }
            ]
    return content


def _metrics(card: ModelCard) -> list[dict[str, Any]]:
    """The results on the held-out images: of all, of each class, and of each slice."""
    test = card.metrics["test"]
    if test["accuracy"] is None:
        return []
    return [
        *(
            _metric(title, test[name], test.get(f"{name}_interval"), "all")
            for name, title in _METRICS.items()
            if test.get(name) is not None
        ),
        *(
            _metric(name, row[name], row[f"{name}_interval"], f"class {row['name']}")
            for row in card.metrics.get("classes", ())
            for name in ("recall", "precision")
        ),
        *(
            _metric(
                "accuracy",
                part["accuracy"],
                part["accuracy_interval"],
                f"{group['property']} {part['value']}",
            )
            for group in card.metrics.get("slices", ())
            if group["property"] != "class"
            for part in group["slices"]
        ),
    ]


def _metric(kind: str, value: float, interval: list[float] | None, part: str) -> dict[str, Any]:
    ends = interval and {"lowerBound": f"{interval[0]:.6f}", "upperBound": f"{interval[1]:.6f}"}
    return {
        "type": kind,
        "value": f"{value:.6f}",
        "slice": part,
        **({"confidenceInterval": ends} if ends else {}),
    }


def _considerations(card: ModelCard) -> dict[str, list[str]]:
    """What the owner says; nothing where nothing is known."""
    known = {"useCases": card.intended_use, "technicalLimitations": card.limits}
    return {name: [text] for name, text in known.items() if text}
