"""The page of an audit: each kind of finding with thumbnails and file names, in one self-contained file."""

import base64
import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelmill.pipeline import __version__
from pixelmill.pipeline.artifacts import now
from pixelmill.pipeline.audit import Audit, AuditInput, Finding
from pixelmill.pipeline.audit.kinds import KINDS
from pixelmill.pipeline.config.audit import FindingKind
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.image_encoding import encode_tensor_thumbnail
from pixelmill.pipeline.templates import open_templates

_TEMPLATE = "page.html.jinja"
_MAX_SHOWN = 24
_MAX_LISTED = 100
_WITHOUT_PICTURES = ("imbalance", "unreadable")
_SIDE = 96
_SMALL_IMAGE = 64
_PNG_START = b"\x89PNG"


@dataclass(frozen=True)
class ShownImage:
    """An image on the page; `picture` is a data URL, empty if it is unreadable."""

    path: str
    sha256: str
    label: str
    split: str
    picture: str
    is_small: bool


@dataclass(frozen=True)
class ShownFinding:
    """A finding on the page: its image and the one it was compared with, if any.

    Attributes:
        reason: What was found, in words.
        images: One or two; none if the finding concerns a class.
        name: The path of the image, or the name of the class.
        share: The images of a small class, in percent of those of the largest.
    """

    reason: str
    images: tuple[ShownImage, ...]
    name: str
    share: float


@dataclass(frozen=True)
class Section:
    """The findings of one kind. `correction` holds the rows of a CSV file of corrections, if any."""

    kind: FindingKind
    title: str
    advice: str
    count: int
    is_stopping: bool
    shown: tuple[ShownFinding, ...]
    correction: str


def render_page(audit: Audit, given: AuditInput) -> str:
    """Render the page as HTML."""
    environment = open_templates("pixelmill.pipeline.audit")
    environment.finalize = _shown
    sections = [_section(kind, audit, given) for kind, found in audit.findings.items() if found]
    page = environment.get_template(_TEMPLATE).render(
        audit=audit,
        name=given.name,
        sections=sections,
        without_pictures=_WITHOUT_PICTURES,
        clean=[KINDS[kind].title for kind, found in audit.findings.items() if not found],
        total=sum(section.count for section in sections),
        made_at=now(),
        pixelmill_version=__version__,
    )
    # A folder's name may not be valid text, but the page must be valid UTF-8.
    return page.encode("utf-8", "backslashreplace").decode()


def _section(kind: FindingKind, audit: Audit, given: AuditInput) -> Section:
    found = audit.findings[kind]
    most = _MAX_LISTED if kind in _WITHOUT_PICTURES else _MAX_SHOWN
    return Section(
        kind=kind,
        title=KINDS[kind].title,
        advice=KINDS[kind].advice,
        count=len(found),
        is_stopping=kind in audit.stopped,
        shown=tuple(_show(finding, given) for finding in found[:most]),
        correction=_correction(kind, found, given),
    )


def _show(finding: Finding, given: AuditInput) -> ShownFinding:
    rows = [row for row in (finding.row, finding.other) if row is not None]
    facts: Mapping[str, Any] = finding.facts
    share = 100 * facts["images"] / facts["largest"] if finding.row is None else 0.0
    return ShownFinding(finding.reason, tuple(_image(row, given) for row in rows), finding.path, share)


def _image(row: int, given: AuditInput) -> ShownImage:
    values = given.images.slice(row, 1).to_pylist()[0]
    picture = b""
    if values["tensor"] is not None:
        pixels = np.asarray(given.tensors[np.array([values["tensor"]])], np.uint8)[0]
        picture = encode_tensor_thumbnail(pixels, _SIDE)
    is_png = picture.startswith(_PNG_START)
    form = "png" if is_png else "jpeg"
    return ShownImage(
        path=values["path"],
        sha256=values["sha256"] or "",
        label=values["label"],
        split=values["split"] or "",
        picture=f"data:image/{form};base64,{base64.b64encode(picture).decode()}" if picture else "",
        is_small=is_png and max(pixels.shape[:2]) <= _SMALL_IMAGE,
    )


def _correction(kind: FindingKind, found: tuple[Finding, ...], given: AuditInput) -> str:
    """The rows that would correct the first findings: the suggested label, or `exclude`."""
    if kind not in ("label_error", "contradiction"):
        return ""
    hashes = given.images["sha256"]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("sha256", "label"))
    corrected = {
        hashes[finding.row].as_py(): finding.facts.get("suggested_label", "exclude")
        for finding in found[:_MAX_LISTED]
        if finding.row is not None
    }
    rows.writerows(corrected.items())
    return text.getvalue()


def _shown(value: object) -> object:
    """A value as shown on the page: names of files and classes may hold any character."""
    # Values with this method are HTML already.
    if hasattr(value, "__html__") or not isinstance(value, str):
        return value
    return "\n".join(map(printable, value.split("\n")))
