"""Every planted fault is found, nothing else is, and what follows from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.audit import Audit, Predictions
from pixelmill.pipeline.audit.audit import (
    audit_images,
    count_and_name,
    describe_audit,
    require_unstopped,
    summarize_findings,
    write_audit,
)
from pixelmill.pipeline.audit.columns import first_of_each
from pixelmill.pipeline.audit.kinds import KINDS
from pixelmill.pipeline.config.audit import AuditSpec, FindingKind
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.images import Pixels
from tests.pipeline.audit.planted import CLASSES, SIDE, Planted, crops, sound


def found_in(planted: Planted, **spec: Any) -> dict[str, list[str]]:
    """The paths of the findings of each kind that has any."""
    audit = audit_images(planted.given(), AuditSpec(**spec))
    return {
        kind: [finding.path for finding in findings] for kind, findings in audit.findings.items() if findings
    }


@pytest.fixture
def planted() -> Planted:
    return sound()


def texture() -> Pixels:
    return crops("brick", 41)[40]


def changed(bits: int) -> Pixels:
    """Another content that looks the same."""
    return np.bitwise_xor(texture(), np.uint8(bits))


def test_each_kind_has_a_response_and_an_entry() -> None:
    assert tuple(KINDS) == get_args(FindingKind)
    for kind in KINDS:
        assert AuditSpec.model_fields[kind].default == "warn"


def test_nothing_is_found_where_nothing_is_wrong(planted: Planted) -> None:
    assert found_in(planted) == {}


def test_without_findings_the_files_are_written_too(planted: Planted, tmp_path: Path) -> None:
    audit = audit_images(planted.given(), AuditSpec())
    write_audit(audit, planted.given(), tmp_path)
    assert not any(read_json(tmp_path / "audit.json")["findings"].values())
    assert summarize_findings(audit, tmp_path) is None


def test_the_findings_are_counted_in_one_line(planted: Planted, tmp_path: Path) -> None:
    planted.add("brick/broken.png", None)
    audit = audit_images(planted.given(predictions(planted, {3: 1, 50: 2})), AuditSpec())
    page = tmp_path / "index.html"
    found = f"the audit found unreadable files (1), probable label errors (2): {page}"
    assert summarize_findings(audit, tmp_path) == found
    only = f"the audit found probable label errors (2): {page}"
    assert summarize_findings(audit, tmp_path, ["label_error"]) == only


def test_an_unreadable_file_is_found(planted: Planted) -> None:
    planted.add("brick/broken.png", None)
    assert found_in(planted) == {"unreadable": ["brick/broken.png"]}


def test_a_duplicate_is_found_and_the_file_that_it_equals(planted: Planted) -> None:
    planted.add("brick/copy.png", planted.tensors[5])
    assert found_in(planted) == {"duplicate": ["brick/copy.png"]}
    (finding,) = audit_images(planted.given(), AuditSpec()).findings["duplicate"]
    assert finding.reason == "equal to brick/0005.png"
    assert finding.facts["other_path"] == "brick/0005.png"


def test_near_duplicates_are_found_once_each(planted: Planted) -> None:
    planted.add("brick/near.png", texture(), component=5)
    planted.add("brick/near again.png", changed(1), component=5)
    planted.add("brick/copy.png", texture(), component=5)
    assert found_in(planted) == {
        "near_duplicate": ["brick/near.png", "brick/near again.png"],
        "duplicate": ["brick/copy.png"],
    }


def test_one_content_in_two_classes_is_found_in_both(planted: Planted) -> None:
    planted.rows[5]["split"] = None
    planted.add("grass/copy.png", planted.tensors[5], split=None)
    assert found_in(planted) == {"contradiction": ["brick/0005.png", "grass/copy.png"]}
    findings = audit_images(planted.given(), AuditSpec()).findings["contradiction"]
    assert findings[0].reason == "equal to grass/copy.png, whose label is grass"
    assert findings[1].facts == {"other_path": "brick/0005.png", "other_label": "brick"}


def test_a_test_image_that_is_a_training_image_is_a_leak(planted: Planted) -> None:
    planted.add("test/brick/copy.png", planted.tensors[5], split="test", label="brick")
    planted.add("test/brick/near.png", texture(), split="test", label="brick", component=6)
    planted.add("brick/a.png", changed(1), group="a clip")
    planted.add("brick/b.png", changed(2), group="a clip", split="validation")
    audit = audit_images(planted.given(), AuditSpec())
    assert [finding.reason for finding in audit.findings["leak"]] == [
        "equal to brick/0005.png, which is in the train split",
        "nearly equal to brick/0006.png, which is in the train split",
        "of the same group as brick/a.png, which is in the train split",
    ]


def test_small_classes_are_found_by_their_training_images() -> None:
    planted = sound(30)
    for name in ("grass", "gravel"):
        kept = [row for row in planted.rows if row["label"] == name and row["split"] == "train"]
        planted.rows = [row for row in planted.rows if row not in kept[3 if name == "grass" else 2 :]]
    assert found_in(planted) == {"imbalance": ["gravel"]}
    assert found_in(planted, imbalance_factor=9) == {"imbalance": ["gravel", "grass"]}


def test_without_splits_all_readable_images_count() -> None:
    planted = sound(30)
    planted.rows = [{**row, "split": None} for row in planted.rows if row["label"] != "gravel"]
    planted.add("gravel/broken.png", None)
    assert found_in(planted, unreadable="ignore") == {"imbalance": ["gravel"]}


def test_odd_sizes_are_found_the_oddest_first(planted: Planted) -> None:
    for index, (width, height) in enumerate(((128, 128), (8, 7), (127, 127), (9, 8), (64, 17))):
        planted.rows[index] |= {"width": width, "height": height}
    paths = ["brick/0001.png", "brick/0000.png"]
    assert found_in(planted, odd_aspect_ratio="ignore") == {"odd_size": paths}


def test_odd_aspect_ratios_are_found_whatever_the_orientation(planted: Planted) -> None:
    for index, (width, height) in enumerate(((60, 24), (16, 64), (59, 24))):
        planted.rows[index] |= {"width": width, "height": height}
    assert found_in(planted) == {"odd_aspect_ratio": ["brick/0001.png", "brick/0000.png"]}


def blurred(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 4), np.uint8)


@pytest.mark.parametrize("kind", ["dark", "bright", "blurred", "flat"])
def test_images_that_show_little_are_found(kind: str, planted: Planted) -> None:
    rng = np.random.default_rng(0)
    faults = {
        "dark": texture() // 8,
        "bright": 255 - texture() // 8,
        "blurred": blurred(texture()),
        "flat": 120 + rng.integers(0, 8, (SIDE, SIDE, 3), dtype=np.uint8),
    }
    planted.add(f"brick/{kind}.png", faults[kind])
    # A dark texture has few grey levels left.
    others = {} if kind == "flat" else {"flat": "ignore"}
    assert found_in(planted, **others) == {kind: [f"brick/{kind}.png"]}


def predictions(planted: Planted, wrong: dict[int, int]) -> Predictions:
    """Confident predictions of the true class, where `wrong` gives the labels of some rows."""
    rows = [index for index, row in enumerate(planted.rows) if row["split"] is not None]
    truth = np.array([CLASSES.index(planted.rows[row]["label"]) for row in rows])
    probabilities = np.full((len(rows), 3), 0.02, np.float32)
    probabilities[np.arange(len(rows)), truth] = 0.96
    labels = truth.copy()
    for row, label in wrong.items():
        labels[rows.index(row)] = label
        planted.rows[row]["label"] = CLASSES[label]
    return Predictions(tuple(planted.rows[row]["sha256"] for row in rows), labels, probabilities)


def test_wrong_labels_are_found_with_the_right_one(planted: Planted) -> None:
    made = predictions(planted, {3: 1, 50: 2})
    audit = audit_images(planted.given(made), AuditSpec())
    findings = audit.findings["label_error"]
    assert {(finding.path, finding.facts["suggested_label"]) for finding in findings} == {
        ("brick/0003.png", "brick"),
        ("grass/0010.png", "grass"),
    }
    assert findings[0].reason.startswith("labelled ")


def test_a_training_image_is_judged_by_the_probability_of_its_label(planted: Planted) -> None:
    hashes = tuple(planted.rows[row]["sha256"] for row in (10, 11, 12))
    probabilities = np.array([[0.4, 0.6, 0], [0.6, 0.4, 0], [0.01, 0, 0.99]], np.float32)
    made = Predictions(hashes, np.zeros(3, np.int64), probabilities)
    images = replace(planted.given(predictions(planted, {50: 2})), training_predictions=made)
    findings = audit_images(images, AuditSpec()).findings["label_error"]
    # The worst first, whatever their split.
    assert [finding.path for finding in findings] == ["brick/0012.png", "grass/0010.png", "brick/0010.png"]
    assert findings[0].reason == "labelled brick (1.0%), predicted gravel (99.0%)"
    findings = audit_images(images, AuditSpec(label_error_below=0.2)).findings["label_error"]
    assert [finding.path for finding in findings] == ["brick/0012.png", "grass/0010.png"]


def test_right_labels_are_no_errors_with_a_class_missing(planted: Planted) -> None:
    planted.rows = [row for row in planted.rows if row["label"] != "grass"]
    audit = audit_images(planted.given(predictions(planted, {})), AuditSpec(imbalance="ignore"))
    assert audit.findings["label_error"] == ()


def test_what_is_ignored_is_not_looked_for(planted: Planted) -> None:
    planted.add("brick/broken.png", None)
    audit = audit_images(planted.given(), AuditSpec(unreadable="ignore"))
    assert "unreadable" not in audit.findings


def stopped(planted: Planted) -> Audit:
    planted.add("brick/broken.png", None)
    planted.add("brick/black.png", texture() * 0)
    return audit_images(planted.given(), AuditSpec(unreadable="stop", leak="stop"))


def test_a_kind_that_stops_is_refused_with_names(planted: Planted) -> None:
    audit = stopped(planted)
    assert audit.stopped == ("unreadable",)
    with pytest.raises(GateRefused) as refusal:
        require_unstopped(audit, Path("audit"))
    assert str(refusal.value) == (
        "the audit found unreadable files: 1 (brick/broken.png); expected none, because "
        "dataset.audit.unreadable is stop. See audit/index.html, then correct the dataset or set "
        "`dataset.audit.unreadable=warn`."
    )


def test_the_json_names_every_finding(planted: Planted, tmp_path: Path) -> None:
    audit = stopped(planted)
    write_audit(audit, planted.given(), tmp_path)
    content = read_json(tmp_path / "audit.json")
    assert content == describe_audit(audit, planted.given())
    assert content["images"] == 122
    assert (content["stopped"], content["stopped_by"]) == (True, ["unreadable"])
    assert set(content["findings"]) == set(KINDS)
    assert content["findings"]["unreadable"] == [
        {
            "path": "brick/broken.png",
            "sha256": None,
            "label": "brick",
            "split": None,
            "reason": "corrupt: the file ends early",
            "error": "corrupt: the file ends early",
        }
    ]
    (dark,) = content["findings"]["dark"]
    assert (dark["path"], dark["brightest"]) == ("brick/black.png", 0)
    assert dark["sha256"] == planted.rows[-1]["sha256"]


def test_an_empty_dataset_has_no_findings() -> None:
    planted = sound(1)
    given_nothing = planted.given().__class__("none", planted.given().images.slice(0, 0), np.zeros(0), ())
    audit = audit_images(given_nothing, AuditSpec())
    assert audit.images == 0
    assert not any(audit.findings.values())


def test_many_findings_are_counted_and_a_few_named() -> None:
    planted = sound()
    for index in range(5):
        planted.add(f"brick/broken\n{index}.png", None)
    found = audit_images(planted.given(), AuditSpec()).findings["unreadable"]
    assert count_and_name(found) == (
        r"5 (brick/broken\n0.png, brick/broken\n1.png, brick/broken\n2.png, and 2 more)"
    )


@given(st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 3)), max_size=30))
def test_the_first_of_each_key_is_the_lowest_then_the_earliest(pairs: list[tuple[int, int]]) -> None:
    keys, values = np.array(pairs, np.int64).reshape(-1, 2).T
    for row, first in enumerate(first_of_each(keys, values)):
        alike = np.flatnonzero(keys == keys[row]) if keys[row] >= 0 else np.array([row])
        assert first == min(alike, key=lambda other: (values[other], other))
