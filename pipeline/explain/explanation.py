"""One image of a table once more, stage by stage, beside what its row says."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.explain.replay import FAILS_IN, STAGES, Facts, Replay
from pixelmill.pipeline.images import ImageFailure, Pixels
from pixelmill.pipeline.locations import parse_location
from pixelmill.pipeline.predictions.finding import find_row, nearest_paths
from pixelmill.pipeline.predictions.stored import StoredTable, read_table
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.scoring.listing import escape

Verdict = Literal["same", "differs", "not told"]


@dataclass(frozen=True)
class Stage:
    """One stage of the way from a file to its answer.

    Attributes:
        name: Of the stage.
        found: What it gives now; `failure` is the code of what ended the replay here.
        row: What the row says of the same; for `keras`, what the ONNX file answers now.
        verdict: Whether they agree; `not told` where there is nothing to compare.
    """

    name: str
    found: Facts
    row: Facts
    verdict: Verdict

    @property
    def differing(self) -> tuple[str, ...]:
        """The facts of the row that are not what was found."""
        return _differing(self.found, self.row)


@dataclass(frozen=True)
class Explanation:
    """The stages of one image as far as the replay came, and the tensor if it came to one."""

    image_path: str
    stages: tuple[Stage, ...]
    tensor: Pixels | None

    @property
    def first_difference(self) -> Stage | None:
        """The first stage that does not give what the row says."""
        return next((stage for stage in self.stages if stage.verdict == "differs"), None)


def explain_image(
    predictions: Path, image: str, store: Path, model: str | None = None, keras: bool = True
) -> Explanation:
    """Answer one image of a table again, and compare every stage with its row.

    Args:
        predictions: The folder of the table, on this machine or remote.
        image: Its `image_path` in the table, or the path of the file below the folder that was scored.
        store: The artifacts root that has the model.
        model: The model, where the store does not have it by the name in the table.
        keras: Whether the Keras model is asked, too, where Keras is installed.

    Raises:
        RequestError: No such table, row or model, or the folder that was scored is gone.
        WorkError: A part or the bundle is damaged.
    """
    manifest, row = read_table(predictions, lambda table: (table.manifest, _require_row(table, image)))
    request = manifest["request"]
    bundle = _require_bundle(store, model, request)
    images = parse_location(request["images"])
    if not images.is_dir():
        raise RequestError(
            f"{images}, the folder that was scored, is not here",
            "the images where they were",
            "Put it back, or run this where it is.",
        )
    replay = Replay(bundle, images, row, request, manifest["provider"])
    names = [name for name in STAGES if keras or name != "keras"]
    stages = _replay_stages(replay, names)
    reached = {stage.name for stage in stages if stage.found.get("failure") is None}
    tensor = replay.decoded.pixels if "tensor" in reached else None
    return Explanation(row["image_path"], tuple(stages), tensor)


def _replay_stages(replay: Replay, names: Sequence[str]) -> list[Stage]:
    stages = []
    # An error with a code of another version is taken for one of decoding.
    fails_in = FAILS_IN.get(replay.failure, "tensor") if replay.failure else None
    for name in names:
        try:
            found, row = STAGES[name](replay)
        except ImageFailure as failure:
            found = {"failure": str(failure.code), "words": failure.words}
            stages.append(_stage(name, found, {"failure": replay.failure}))
            break
        if name == fails_in:
            found, row = {**found, "failure": None}, {**row, "failure": replay.failure}
        stages.append(_stage(name, found, row))
    return stages


def _stage(name: str, found: Facts, row: Facts) -> Stage:
    if not row:
        return Stage(name, found, row, "not told")
    return Stage(name, found, row, "differs" if _differing(found, row) else "same")


def _differing(found: Facts, row: Facts) -> tuple[str, ...]:
    tolerance = found.get("tolerance", 0.0)
    return tuple(name for name, value in row.items() if not _agree(found.get(name), value, tolerance))


def _agree(found: Any, told: Any, tolerance: float) -> bool:
    if isinstance(found, list) and isinstance(told, list):
        pairs = zip(found, told, strict=False)
        return len(found) >= len(told) and all(_agree(a, b, tolerance) for a, b in pairs)
    if isinstance(found, float) and isinstance(told, float):
        return abs(found - told) <= tolerance
    return bool(found == told)


def _require_row(table: StoredTable, image: str) -> Facts:
    images: str = table.manifest["request"]["images"]
    for path in _paths_meant(images, image):
        row = find_row(table, path)
        if row is not None:
            return row
    near = nearest_paths(table, _paths_meant(images, image)[-1])
    raise RequestError(
        f"{image}, of which the table in {table.folder} has no row",
        f"an image_path of the table or a file below {images}",
        f"The nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}."
        if near
        else "Look at the table's column `image_path`.",
    )


def _paths_meant(images: str, image: str) -> list[str]:
    """What a text may stand for in a table: itself, a name below the folder scored, a whole path."""
    meant = [image, _escape_parts(image.removeprefix("./"))]
    if "://" in images:
        if image.startswith(f"{images.rstrip('/')}/"):
            meant.append(_escape_parts(image[len(images.rstrip("/")) + 1 :]))
    else:
        # The file itself may be a link, and the table has the link's name.
        place = Path(os.path.abspath(image))  # noqa: PTH100  # Unlike Path.absolute it takes out `..`.
        places = (place, place.parent.resolve() / place.name)
        inside = [path.relative_to(images).as_posix() for path in places if path.is_relative_to(images)]
        meant += map(_escape_parts, inside)
    return list(dict.fromkeys(meant))


def _escape_parts(path: str) -> str:
    return "/".join(escape(part) for part in path.split("/"))


def _require_bundle(store: Path, model: str | None, request: Facts) -> ModelBundle:
    try:
        return find_bundle(store, model or request["model"], request.get("precision", "fp32"))
    except RequestError as error:
        if model is not None:
            raise
        raise RequestError(
            f"a table of {request['model']}: {error.received}",
            "the model that the table was made with",
            "Name its store with `store`, or the bundle's folder with `model`.",
        ) from error
