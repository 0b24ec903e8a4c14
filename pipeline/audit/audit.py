"""Looking for all kinds of findings, and what follows from them."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.artifacts import write_json, write_text
from pixelmill.pipeline.audit import AUDIT_FILE, PAGE_FILE, Audit, AuditInput, Finding
from pixelmill.pipeline.audit.kinds import KINDS
from pixelmill.pipeline.audit.page import render_page
from pixelmill.pipeline.config import DatasetSource
from pixelmill.pipeline.config.audit import AuditSpec, FindingKind
from pixelmill.pipeline.config.sources import OwnImages
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import GateRefused

_MAX_NAMED = 3


def audit_images(given: AuditInput, spec: AuditSpec) -> Audit:
    """Look for every kind of finding that the spec does not ignore. No image is decoded."""
    findings: dict[FindingKind, tuple[Finding, ...]] = {
        kind: tuple(entry.find(given, spec))
        for kind, entry in KINDS.items()
        if getattr(spec, kind) != "ignore"
    }
    stopped = tuple(kind for kind, found in findings.items() if found and getattr(spec, kind) == "stop")
    return Audit(len(given.images), findings, stopped)


def spec_of(source: DatasetSource) -> AuditSpec:
    """What to look for in a dataset; the defaults for those that a package or a mirror provides."""
    return source.audit if isinstance(source, OwnImages) else AuditSpec()


def look_at(given: AuditInput, spec: AuditSpec, folder: Path) -> Audit:
    """Audit images and write `audit.json` and the page to a folder."""
    audit = audit_images(given, spec)
    write_audit(audit, given, folder)
    return audit


def write_audit(audit: Audit, given: AuditInput, folder: Path) -> Path:
    """Write `audit.json` and the page to a folder, in place of those of an earlier audit.

    Returns:
        The path of the page.
    """
    write_json(folder / AUDIT_FILE, describe_audit(audit, given))
    write_text(folder / PAGE_FILE, render_page(audit, given))
    return folder / PAGE_FILE


def describe_audit(audit: Audit, given: AuditInput) -> dict[str, Any]:
    """The content of `audit.json`: `images`, `findings` by kind, `stopped`, and `stopped_by`, the kinds."""
    rows = [finding.row for found in audit.findings.values() for finding in found if finding.row is not None]
    known = given.images.select(["sha256", "label", "split"]).take(np.array(rows, np.int64)).to_pylist()
    columns = dict(zip(rows, known, strict=True))
    return {
        "images": audit.images,
        "findings": {
            kind: [
                {
                    "path": finding.path,
                    **(columns[finding.row] if finding.row is not None else {}),
                    "reason": finding.reason,
                    **finding.facts,
                }
                for finding in found
            ]
            for kind, found in audit.findings.items()
        },
        "stopped": bool(audit.stopped),
        "stopped_by": list(audit.stopped),
    }


def summarize_findings(
    audit: Audit, folder: Path, kinds: Collection[FindingKind] = tuple(KINDS)
) -> str | None:
    """One line with the number of findings of each kind and where the page is; None without findings."""
    counts = [
        f"{KINDS[kind].title} ({len(found):,})"
        for kind, found in audit.findings.items()
        if found and kind in kinds
    ]
    return f"the audit found {', '.join(counts)}: {folder / PAGE_FILE}" if counts else None


def explain_imbalance(audit: Audit) -> str | None:
    """One line about the smallest class, and what to do; None if no class is small."""
    found = audit.findings.get("imbalance", ())
    if not found:
        return None
    more = f", and {len(found) - 1:,} more classes are small" if len(found) > 1 else ""
    smallest = printable(f"class {found[0].path} has {found[0].reason}")
    return f"{smallest}{more}. Add images, or set `training.class_weights=balanced`."


def require_unstopped(audit: Audit, folder: Path) -> None:
    """Refuse a dataset with findings of a kind that stops.

    Args:
        audit: The findings.
        folder: Where they were written.

    Raises:
        GateRefused: There are some; names the first kind.
    """
    for kind in audit.stopped:
        raise GateRefused(
            f"the audit found {KINDS[kind].title}: {count_and_name(audit.findings[kind])}",
            f"none, because dataset.audit.{kind} is stop",
            f"See {folder / PAGE_FILE}, then correct the dataset or set `dataset.audit.{kind}=warn`.",
        )


def count_and_name(found: tuple[Finding, ...]) -> str:
    """The number of findings and the first few paths: `4 (a.png, b.png, c.png, and 1 more)`."""
    names = [printable(finding.path) for finding in found[:_MAX_NAMED]]
    if len(found) > _MAX_NAMED:
        names.append(f"and {len(found) - _MAX_NAMED:,} more")
    return f"{len(found):,} ({', '.join(names)})"
