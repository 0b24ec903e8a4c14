"""Making a review: find the rows, choose among them, and write a folder with the page or the tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelmill.pipeline.artifacts import publishing, write_json, write_text
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.clutter import is_clutter
from pixelmill.pipeline.drift.sample import ImageSample
from pixelmill.pipeline.errors import PixelmillError, RequestError, WorkError
from pixelmill.pipeline.images import ImageFailure
from pixelmill.pipeline.predictions.parts import read_image_sample
from pixelmill.pipeline.predictions.table import StoredTable, read_table
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.review import (
    CONFIG_FILE,
    IMAGES_FOLDER,
    PAGE_FILE,
    TASKS_FILE,
    THUMBNAILS_FOLDER,
    ChosenImage,
    Picture,
    ReasonName,
    ReviewFormat,
    Row,
)
from pixelmill.pipeline.review.candidates import Pools, find_candidates
from pixelmill.pipeline.review.label_studio import config_of, tasks_of
from pixelmill.pipeline.review.page import render_page
from pixelmill.pipeline.review.pictures import ending_of, make_copies, make_pictures
from pixelmill.pipeline.review.previous import PreviousLabels
from pixelmill.pipeline.review.reasons import REASONS, Evidence, MeasuredImages
from pixelmill.pipeline.review.selection import choose, divide_places
from pixelmill.pipeline.scoring.sources import ImageSource, source_of_table
from pixelmill.pipeline.storage import Location, parse_location, require_reachable

_POOL = 3
"""So many times the images wanted are read, to choose among them those that differ."""
_PNG_START = b"\x89PNG"


@dataclass(frozen=True)
class ReviewRequest:
    """What to review.

    Attributes:
        table: The folder of a prediction table.
        output: The folder to write, empty or new.
        store: The artifacts root with the model of the table.
        model: The model, if it is not in the store under the name in the table.
        images: The folder or archive that was scored, or the root of the list, if it is elsewhere now.
        previous: An earlier table; if None, the one that the table was made with, if any.
        count: The largest number of images.
        format: What is written.
    """

    table: Location
    output: Path
    store: Location
    model: str | None = None
    images: Location | None = None
    previous: Location | None = None
    count: int = 100
    format: ReviewFormat = "page"


@dataclass(frozen=True)
class Review:
    """A review that was written.

    Attributes:
        folder: Its folder.
        file: The page or the tasks.
        reasons: The number of images that each reason chose.
        left_out: The number of candidates whose file is gone, changed or unreadable.
        not_judged: Why a reason could not be looked for.
    """

    folder: Path
    file: Path
    reasons: dict[ReasonName, int]
    left_out: int
    not_judged: dict[ReasonName, str]

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(self.reasons.values())


def make_review(request: ReviewRequest) -> Review:
    """Choose images of a table and write a folder to review them.

    Raises:
        RequestError: There is no such table or folder of images, the output is in use, or no image is left.
        WorkError: A part of the table is damaged.
    """
    _require_empty(request.output)
    return read_table(request.table, lambda table: _review(table, request))


def _review(table: StoredTable, request: ReviewRequest) -> Review:
    images = _require_images(table, request)
    bundle, no_bundle = _find_bundle(table, request)
    evidence, not_judged = _gather(table, request, bundle, no_bundle)
    pools = find_candidates(table, evidence, _POOL * request.count)
    quotas = divide_places({name: len(pool) for name, pool in pools.items()}, request.count)
    pools = {name: pool[: _POOL * quotas[name]] for name, pool in pools.items()}
    rows = list({one.row.sha256: one.row for pool in pools.values() for one in pool}.values())
    found = make_pictures(images, rows)
    pictures = {sha256: made for sha256, made in found.items() if isinstance(made, Picture)}
    chosen = choose(pools, pictures, request.count)
    if not chosen:
        raise _nothing(images, found, rows)
    words = _describe_reasons(pools, evidence)
    selected = [
        ChosenImage(row, pictures[row.sha256], {name: words[row.sha256][name], **words[row.sha256]})
        for row, name in chosen
    ]
    class_names = _class_names(table, bundle, [row for row, _ in chosen])
    written = _write(table, request, images, class_names, selected)
    reasons = dict.fromkeys(REASONS, 0)
    for image in written:
        reasons[next(iter(image.reasons))] += 1
    file = PAGE_FILE if request.format == "page" else TASKS_FILE
    left_out = len(rows) - len(pictures) + len(selected) - len(written)
    return Review(request.output, request.output / file, reasons, left_out, not_judged)


def _write(
    table: StoredTable,
    request: ReviewRequest,
    images: ImageSource,
    class_names: Sequence[str],
    selected: Sequence[ChosenImage],
) -> list[ChosenImage]:
    """Write the folder; the images in it, which are those that were still there to be copied."""
    model, is_page = table.manifest["request"]["model"], request.format == "page"
    facts: dict[str, Any] = {"kind": "review", "model": model, "table": str(request.table)}
    with publishing(request.output, facts) as folder:
        written = []
        (folder / IMAGES_FOLDER).mkdir()
        (folder / THUMBNAILS_FOLDER).mkdir()
        copies = make_copies(images, [image.row for image in selected])
        for image, copy in zip(selected, copies, strict=True):
            if isinstance(copy, bytes):
                written.append(_place(image, copy, folder))
        if is_page:
            write_text(folder / PAGE_FILE, render_page(model, class_names, written))
        else:
            write_json(folder / TASKS_FILE, tasks_of(request.output.absolute().name, model, written))
            write_text(folder / CONFIG_FILE, config_of(class_names))
        facts["images"] = len(written)
    return written


def _place(image: ChosenImage, copy: bytes, folder: Path) -> ChosenImage:
    """Write the copy and the thumbnail of an image, under names that its content decides."""
    sha256, thumbnail = image.row.sha256, image.picture.thumbnail
    small = "png" if thumbnail.startswith(_PNG_START) else "jpg"
    names = (
        f"{IMAGES_FOLDER}/{sha256}.{ending_of(image.picture)}",
        f"{THUMBNAILS_FOLDER}/{sha256}.{small}",
    )
    for name, content in zip(names, (copy, thumbnail), strict=True):
        (folder / name).write_bytes(content)
    return replace(image, image=names[0], thumbnail=names[1])


def _gather(
    table: StoredTable, request: ReviewRequest, bundle: ModelBundle | None, no_bundle: str
) -> tuple[Evidence, dict[ReasonName, str]]:
    """What the rows are judged by, and why a reason cannot be looked for."""
    missing: dict[ReasonName, str] = {}
    previous = _read_previous(table, request, missing)
    thresholds = bundle.decision_thresholds() if bundle else ()
    if not thresholds:
        missing["threshold"] = no_bundle or "the model has no thresholds (`evaluation.precision`)"
    measured = None
    sample = ImageSample.join(
        [] if table.is_csv else [ImageSample.from_text(read_image_sample(file.path)) for file in table.files]
    )
    if bundle is None:
        missing["drifted"] = no_bundle
    elif not len(sample.positions):
        missing["drifted"] = "the table has no measures of its images, as in CSV"
    else:
        measured = MeasuredImages.of(sample, bundle.baseline())
    if table.manifest.get("accuracy") is None:
        missing["contradicted"] = "the table has no true labels"
    return Evidence(thresholds, previous, measured), missing


def _read_previous(
    table: StoredTable, request: ReviewRequest, missing: dict[ReasonName, str]
) -> PreviousLabels | None:
    recorded = table.manifest.get("previous")
    place = request.previous or (parse_location(recorded) if recorded else None)
    if place is None:
        missing["changed"] = "there is no earlier table"
        return None
    try:
        require_reachable(place)
        return read_table(place, PreviousLabels)
    except (PixelmillError, OSError) as error:
        if request.previous is not None:
            raise
        missing["changed"] = str(error)
        return None


def _find_bundle(table: StoredTable, request: ReviewRequest) -> tuple[ModelBundle | None, str]:
    """The model of the table; None, and why, if it is nowhere."""
    facts = table.manifest["request"]
    try:
        return find_bundle(request.store, request.model or facts["model"], facts.get("precision", "fp32")), ""
    except (PixelmillError, OSError) as error:
        if request.model is not None:
            raise
        reason = error.received if isinstance(error, PixelmillError) else str(error)
        return None, f"the model of the table is not here: {reason}"


def _class_names(table: StoredTable, bundle: ModelBundle | None, rows: Sequence[Row]) -> list[str]:
    """The classes of the model; without it, those that the table names."""
    names = list(bundle.labels()) if bundle else sorted(table.manifest.get("labels", {}))
    further = {name for row in rows for name in (row.label, row.second_label) if name is not None}
    return [*names, *sorted(further - set(names))]


def _describe_reasons(pools: Pools, evidence: Evidence) -> dict[str, dict[ReasonName, str]]:
    """Why each content is worth a look, by SHA-256."""
    words: dict[str, dict[ReasonName, str]] = {}
    for name, pool in pools.items():
        for one in pool:
            words.setdefault(one.row.sha256, {})[name] = REASONS[name].describe(one.row, evidence)
    return words


def _require_images(table: StoredTable, request: ReviewRequest) -> ImageSource:
    source = source_of_table(table.manifest["request"])
    if request.images is not None:
        # Paths of a list are relative to its root.
        source = replace(source, place=request.images, root=request.images)
    place = source.place if source.kind == "archive" else source.root
    require_reachable(place)
    if not (place.is_file() if source.kind == "archive" else place.is_dir()):
        what = "archive" if source.kind == "archive" else "folder"
        raise RequestError(
            f"{place}, the {what} that was scored, does not exist",
            f"the {what} of the images of the table",
            f"Name the {what} where they are now with `images`.",
        )
    return source


def _require_empty(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise RequestError(
            f"`output` {output} is a file", "an empty or new folder", "Choose another `output`."
        )
    names = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    foreign = [name for name in names if not is_clutter(name)]
    if foreign:
        raise RequestError(
            f"`output` {output} contains {foreign[0]!r}",
            "an empty or new folder",
            "Choose another `output`.",
        )


def _nothing(
    images: ImageSource, found: dict[str, Picture | ImageFailure], rows: Sequence[Row]
) -> PixelmillError:
    if not rows:
        return RequestError(
            "a table without scored images", "a table with predictions", "Score images that can be read."
        )
    first = rows[0]
    return WorkError(
        f"none of {len(rows):,} images of the table can be read in {images.place}, such as {first.path} "
        f"({found[first.sha256]})",
        "the images that were scored, unchanged",
        "Name the folder where they are now with `images`.",
    )
