"""Fixed stays fixed: every image whose label a person corrected is a check that no later version may fail."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pixelmill.pipeline.artifacts import scratch_folder
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.datasets import RawDataset
from pixelmill.pipeline.datasets.corrections import EXCLUDE, Correction, Corrections, read_corrections
from pixelmill.pipeline.datasets.exclusions import read_exclusions
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import GateRefused, WorkError
from pixelmill.pipeline.evaluation.summary import name_some
from pixelmill.pipeline.file_names import unescape
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.images import ImageFailure
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.promotion.bars import Verdict
from pixelmill.pipeline.promotion.pictures import encode_pictures
from pixelmill.pipeline.promotion.prediction import FilePredictions, predict_files
from pixelmill.pipeline.registry.checks import PermanentCheck, add_checks, check_image, read_checks
from pixelmill.pipeline.storage import Location, download_file, is_remote

_log = getLogger(__name__)
_COLUMNS = ["sha256", "name", "origin", "class_name", "place"]
_MAX_PICTURES = 24
LIMIT = "right for every image that a person corrected"


@dataclass(frozen=True)
class FailedCheck:
    """An image that a person corrected and that a version gets wrong.

    Attributes:
        sha256: SHA-256 of its content.
        path: Its path in the dataset.
        label: The class that the person gave it.
        predicted: The class that the version predicts.
        probability: Its probability.
        who: Who corrected it; may be empty.
        picture: A thumbnail as a data URL; empty without one.
    """

    sha256: str
    path: str
    label: str
    predicted: str
    probability: float
    who: str
    picture: str = ""


@dataclass(frozen=True)
class CheckResults:
    """What a version predicts for the permanent checks of its model.

    Attributes:
        images: Number of checks it was judged on.
        not_judged: Number of checks that could not be judged: their class is none of the version's, or the
            image is missing or cannot be read.
        failed: Those that it gets wrong.
        champion_right: Number of checks that the champion gets right; None without a champion.
    """

    images: int
    not_judged: int
    failed: tuple[FailedCheck, ...]
    champion_right: int | None = None

    def verdict(self) -> Verdict:
        """The checks as a bar."""
        right = self.images - len(self.failed)
        champion = self.champion_right
        return Verdict(
            bar="permanent_checks",
            scope="all",
            images=self.images,
            value=right / self.images if self.images else None,
            interval=None,
            champion=champion / self.images if self.images and champion is not None else None,
            limit=LIMIT,
            verdict="not judged" if not self.images else "refused" if self.failed else "passed",
            note=self.describe() if self.failed else "",
        )

    def describe(self) -> str:
        """Which checks failed, in words."""
        failed = [f"{one.path} ({one.label}, predicted {one.predicted})" for one in self.failed]
        return f"gets {len(failed):,} of {self.images:,} corrected images wrong: {name_some(failed)}"

    def to_json(self) -> dict[str, Any]:
        """The results without thumbnails."""
        failed = [asdict(one) for one in self.failed]
        for one in failed:
            del one["picture"]
        return {"images": self.images, "not_judged": self.not_judged, "failed": failed}


def collect_checks(store: Location, name: str, raw: RawDataset, corrections: str, by: str) -> int:
    """Make every corrected image of a dataset a permanent check of a model.

    An image that was given another label than before replaces its check, and an excluded one withdraws it.

    Args:
        store: The artifacts root.
        name: The model's name.
        raw: The dataset, with the corrections applied.
        corrections: The file of corrections.
        by: The run.

    Returns:
        The number of checks that are new or have changed.

    Raises:
        RequestError: The file of corrections cannot be read.
        WorkError: The list of checks is damaged.
    """
    given = read_corrections(corrections)
    known = read_checks(store, name)
    found, places = {}, {}
    for row, correction in _corrected_rows(raw, given):
        sha256 = row["sha256"]
        pixels_or_file = Path(row["name"]).suffix.lower().lstrip(".")
        suffix = f".{pixels_or_file}" if pixels_or_file.isalnum() and len(pixels_or_file) <= 8 else ""
        found[sha256] = PermanentCheck(
            sha256=sha256,
            label=row["class_name"],
            file=f"{sha256}{suffix if suffix.isascii() else ''}",
            name=row["name"],
            origin=row["origin"],
            who=correction.who,
            when=correction.when,
        )
        places[sha256] = row["place"]
    for sha256, check in known.items():
        rows = [given.by_sha256.get(sha256), given.by_path.get(check.name), given.by_path.get(check.origin)]
        if sha256 not in found and any(row is not None and row.label == EXCLUDE for row in rows):
            found[sha256] = check.model_copy(update={"label": None})

    def read(sha256: str) -> bytes:
        try:
            content = raw.catalogue.reader.read(places[sha256])
        except ImageFailure as failure:
            raise WorkError(
                f"{printable(found[sha256].origin)} cannot be read any more ({failure})",
                "the image that a person corrected",
                "Restore it, and run the same command again.",
            ) from failure
        return content if isinstance(content, bytes) else encode_png(content)

    return add_checks(store, name, found, read, by)


def _corrected_rows(raw: RawDataset, given: Corrections) -> Iterator[tuple[dict[str, str], Correction]]:
    """The rows of the images that a person corrected, of equal ones the first."""
    import pyarrow.parquet as pq

    seen: set[str] = set()
    with pq.ParquetFile(raw.catalogue.path) as file:
        for batch in file.iter_batches(columns=_COLUMNS):
            rows = batch.filter(pc.is_valid(batch.column("sha256")))
            if not given.by_path:
                rows = rows.filter(pc.is_in(rows.column("sha256"), pa.array(given.by_sha256, pa.string())))
            for row in rows.to_pylist():
                correction = given.by_sha256.get(row["sha256"]) or _by_path(row, given)
                if correction is not None and row["sha256"] not in seen:
                    seen.add(row["sha256"])
                    yield row, correction


def _by_path(row: dict[str, str], given: Corrections) -> Correction | None:
    names = (row["name"], row["origin"], unescape(row["name"]), unescape(row["origin"]))
    return next((given.by_path[name] for name in names if name in given.by_path), None)


def run_checks(store: Location, bundle: ModelBundle, champion: ModelBundle | None) -> CheckResults | None:
    """Predict the permanent checks of a model with a version, and with the champion if there is one.

    Returns:
        The results; None if the model has no checks.

    Raises:
        WorkError: The list of checks is damaged, or a version predicts something that is no probability.
    """
    excluded = read_exclusions(store)
    given = read_checks(store, bundle.name)
    checks = [check for sha256, check in given.items() if check.label is not None and sha256 not in excluded]
    if not checks:
        return None
    with scratch_folder("checks") as folder:
        files = list(_fetch(store, bundle.name, checks, folder))
        bundles = [bundle, *([champion] if champion else [])]
        new, *reference = predict_files(bundles, files, "predict permanent checks")
        known = {normalize_label(name) for name in new.labels}
        judged = [at for at, check in enumerate(checks) if check.label in known and at not in new.failures]
        wrong = [at for at in judged if new.names()[at] != checks[at].label]
        pictures = encode_pictures([files[at] for at in wrong[:_MAX_PICTURES]])
        failed = [
            _failed(checks[at], new, at, pictures[number] if number < len(pictures) else "")
            for number, at in enumerate(wrong)
        ]
    right = None
    if reference:
        names = reference[0].names()
        right = sum(names[at] == checks[at].label for at in judged if at not in reference[0].failures)
    return CheckResults(len(judged), len(checks) - len(judged), tuple(failed), right)


def require_checks(store: Location, bundle: ModelBundle, command: str) -> None:
    """Check that a version gets every permanent check of its model right.

    Args:
        store: The artifacts root.
        bundle: The version.
        command: The command that promotes it anyway, for the error message.

    Raises:
        GateRefused: It gets one wrong.
        WorkError: The list of checks is damaged.
    """
    results = run_checks(store, bundle, None)
    if results is not None and results.failed:
        raise GateRefused(
            f"{bundle.name}@{bundle.version} {results.describe()}",
            LIMIT,
            f"No alias was moved. To promote it anyway: `{command}`.",
        )


def _fetch(store: Location, name: str, checks: Sequence[PermanentCheck], folder: Path) -> Iterator[Path]:
    """The images of checks as local files, which do not exist where an image is missing."""
    for check in checks:
        image = check_image(store, name, check)
        if not is_remote(image):
            yield image
        else:
            download_file(image, folder / check.file)
            yield folder / check.file


def _failed(check: PermanentCheck, new: FilePredictions, at: int, picture: str) -> FailedCheck:
    return FailedCheck(
        sha256=check.sha256,
        path=check.name,
        label=check.label or "",
        predicted=new.names()[at],
        probability=float(new.probabilities[at].max()),
        who=check.who,
        picture=picture,
    )
