"""The page of an audit: complete, self-contained, readable at any width, and safe with any file name."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from pixelmill.pipeline.audit import AuditInput
from pixelmill.pipeline.audit.audit import audit_images
from pixelmill.pipeline.audit.kinds import KINDS
from pixelmill.pipeline.audit.page import render_page
from pixelmill.pipeline.config.audit import AuditSpec
from tests.pipeline.audit.planted import Planted, every_fault

HOSTILE = "<script>alert(1)</script>\"'&amp;<img src=http://outside.test/x onerror=alert(1)>\u202egnp"


@pytest.fixture(scope="module")
def given() -> AuditInput:
    return every_fault()


def page_of(given: AuditInput, **spec: Any) -> str:
    return render_page(audit_images(given, AuditSpec(**spec)), given)


@pytest.fixture(scope="module")
def page(given: AuditInput) -> str:
    return page_of(given, leak="stop")


def test_every_kind_has_a_section_with_its_findings(given: AuditInput, page: str) -> None:
    audit = audit_images(given, AuditSpec())
    for kind, entry in KINDS.items():
        assert audit.findings[kind], kind
        assert f'<section id="{kind}">' in page
        assert entry.title.capitalize() in page
    assert page.count("stops the run") == 1
    assert page_of(given).count("stops the run") == 0


def test_labels_to_correct_can_be_copied_as_rows(given: AuditInput, page: str) -> None:
    findings = audit_images(given, AuditSpec()).findings
    blocks = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    contradiction, label_error = (list(csv.reader(block.splitlines())) for block in blocks)
    assert contradiction[0] == label_error[0] == ["sha256", "label"]
    assert {label for _, label in contradiction[1:]} == {"exclude"}
    rows = given.images.to_pylist()
    expected = {
        (rows[finding.row or 0]["sha256"], finding.facts["suggested_label"])
        for finding in findings["label_error"]
    }
    assert {tuple(row) for row in label_error[1:]} == expected


def test_nothing_is_fetched_and_names_are_escaped(page: str) -> None:
    planted = Planted()
    planted.add(f"{HOSTILE}/a.png", np.zeros((8, 8, 1), np.uint8))
    planted.add(f"{HOSTILE}/b.png", None)
    hostile = page_of(planted.given())
    assert "<script" not in hostile
    assert "<img src=http" not in hostile
    assert "\u202e" not in hostile
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in hostile
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)


def test_a_page_without_findings_says_so() -> None:
    planted = Planted()
    planted.add("brick/noise.png", np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    page = page_of(planted.given(), imbalance="ignore")
    assert "<nav>" not in page
    assert "Not found: unreadable files, duplicates" in page


def test_no_more_than_24_pictures_of_a_kind_are_shown() -> None:
    planted = Planted()
    for level in range(40):
        planted.add(f"brick/{level}.png", np.full((8, 8, 1), level, np.uint8))
    page = page_of(planted.given(), imbalance="ignore", dark="ignore")
    assert page.count("<figure") == 24
    assert "16 more in audit.json" in page


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_window(browser: Browser, tmp_path: Path, page: str, width: int) -> None:
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    window = browser.new_page(viewport={"width": width, "height": 800})
    refused: list[str] = []
    window.on("console", lambda message: refused.append(message.text))
    window.goto(f"file://{tmp_path}/index.html")
    assert window.evaluate("document.documentElement.scrollWidth") <= width
    assert window.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert not refused
    window.close()
