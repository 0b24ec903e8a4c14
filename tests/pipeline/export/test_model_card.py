"""The model card and the bill of materials: facts only, valid, and the same for the same model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pixelmill.pipeline.artifacts import read_json, read_manifest, sha256_of, write_json
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.export.bill_of_materials import write_bill
from pixelmill.pipeline.export.model_card import gather_card, write_card


@pytest.fixture
def folder(bundle: ModelBundle, tmp_path: Path) -> Path:
    return shutil.copytree(bundle.folder, tmp_path / "bundle")


def write_both(folder: Path, facts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The card, and the bill, which must be valid and the same when it is written again."""
    card = gather_card(folder, facts)
    write_card(folder, card)
    write_bill(folder, card)
    text = (folder / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    write_bill(folder, card)
    assert (folder / "bom.cdx.json").read_text() == text
    return (folder / "MODEL_CARD.md").read_text(), json.loads(text)


def test_the_card_holds_the_results_of_the_evaluation(folder: Path) -> None:
    manifest, metrics = read_manifest(folder), read_json(folder / "metrics.json")
    words = {"intended_use": "Reads <b>digits</b>.\n\n- of *scans*", "limits": "Not for letters."}
    facts = {**manifest, "recipe": {**manifest["recipe"], "card": words}, "licence": "Apache-2.0"}
    card, bill = write_both(folder, facts)
    assert "Reads &lt;b>digits&lt;/b>.\n\n- of *scans*" in card
    assert "Not for letters." in card
    test = metrics["test"]
    low, high = test["accuracy_interval"]
    assert f"| accuracy | {test['accuracy']:.4f} | {low:.4f} to {high:.4f} |" in card
    assert "| train images | 1,295 |" in card
    assert f"`{manifest['dataset_fingerprint']}`" in card
    assert all(
        f"\n| {row['name']} | {row['images']} | {row['recall']:.4f} |" in card for row in metrics["classes"]
    )
    assert "There are none: the most probable class" in card
    model = bill["metadata"]["component"]
    assert (model["name"], model["type"]) == ("digits", "machine-learning-model")
    assert model["hashes"] == [{"alg": "SHA-256", "content": sha256_of(folder / "model.onnx")}]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    described = model["modelCard"]
    assert described["considerations"] == {
        "useCases": [words["intended_use"]],
        "technicalLimitations": ["Not for letters."],
    }
    measured = described["quantitativeAnalysis"]["performanceMetrics"]
    assert measured[0] == {
        "type": "accuracy",
        "value": f"{test['accuracy']:.6f}",
        "slice": "all",
        "confidenceInterval": {"lowerBound": f"{low:.6f}", "upperBound": f"{high:.6f}"},
    }
    assert {row["slice"] for row in measured} >= {"class 0", "class 9"}
    names = {component["name"] for component in bill["components"]}
    assert {"keras", "onnx", "tf2onnx", "training data of digits"} <= names
    assert "timestamp" not in bill["metadata"]


def test_another_content_has_another_serial_number(folder: Path) -> None:
    manifest = {**read_manifest(folder), "licence": "unspecified"}
    _, before = write_both(folder, manifest)
    _, after = write_both(folder, {**manifest, "version": 2})
    assert before["serialNumber"] != after["serialNumber"]
    assert "licenses" not in before["metadata"]["component"]


def test_what_is_not_known_is_said(folder: Path) -> None:
    manifest = read_manifest(folder)
    unknown = ("recipe", "dataset_fingerprint")
    facts = {name: value for name, value in manifest.items() if name not in unknown}
    facts["licence"] = "unspecified"
    write_json(folder / "metrics.json", {"test": {"images": 3, "accuracy": None, "loss": None}})
    card, bill = write_both(folder, facts)
    assert card.count("Its owner has not said.") == 2
    assert "The model was trained elsewhere: its training data and its training are not known here." in card
    assert "Not known: the held-out images have no labels." in card
    assert "Licence: not stated." in card
    described = bill["metadata"]["component"]["modelCard"]
    assert described["considerations"] == {}
    assert described["quantitativeAnalysis"] == {"performanceMetrics": []}
    assert "datasets" not in described["modelParameters"]


def test_names_are_not_read_as_markup(folder: Path) -> None:
    metrics = read_json(folder / "metrics.json")
    metrics["classes"][0]["name"] = "a|b <script> [x](y)"
    metrics["thresholds"] = [
        {
            "class": "a|b",
            "threshold": None,
            "precision": None,
            "precision_interval": None,
            "coverage": 0.0,
        }
    ]
    write_json(folder / "metrics.json", metrics)
    card, _ = write_both(folder, read_manifest(folder))
    assert "a&#124;b &#60;script&#62; &#91;x&#93;(y)" in card
    assert "<script>" not in card
    assert "| a&#124;b | never |  |  |" in card
