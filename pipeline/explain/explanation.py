"""Comparison of each stage of a replayed prediction with the image's row."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.explain.replay import FAILS_IN, STAGES, Facts, Replay
from pixelmill.pipeline.images import ImageFailure, Pixels
from pixelmill.pipeline.predictions.lookup import find_row, nearest_paths
from pixelmill.pipeline.predictions.table import StoredTable, read_table
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.scoring.listing import escape
from pixelmill.pipeline.scoring.sources import source_of_table
from pixelmill.pipeline.storage import Location, absolute

Verdict = Literal["same", "differs", "not recorded"]


@dataclass(frozen=True)
class Stage:
    """One stage between a file and its prediction.

    Attributes:
        name: The name of the stage.
        found: The result of the replay; `failure` is the code of the failure that ended it at this stage.
        row: The same facts in the row; for `keras`, the prediction of the ONNX file in this replay.
        verdict: Whether the two agree; `not recorded` if there is nothing to compare.
    """

    name: str
    found: Facts
    row: Facts
    verdict: Verdict

    @property
    def differing(self) -> tuple[str, ...]:
        """The names of the facts that differ between the row and the replay."""
        return _differing(self.found, self.row)


@dataclass(frozen=True)
class Explanation:
    """The stages that the replay of an image reached, and the tensor if it got that far.

    `tensor` is uint8 [height, width, channels].
    """

    image_path: str
    stages: tuple[Stage, ...]
    tensor: Pixels | None

    @property
    def first_difference(self) -> Stage | None:
        """The first stage whose result differs from the row; None if all agree."""
        return next((stage for stage in self.stages if stage.verdict == "differs"), None)


def explain_image(
    predictions: Location, image: str, store: Location, model: str | None = None, keras: bool = True
) -> Explanation:
    """Predict one image of a table again and compare every stage with its row.

    Args:
        predictions: The folder of the table, local or remote.
        image: The `image_path` in the table, or the path of the file below the folder that was scored.
        store: The artifacts root with the model.
        model: The model, if it is not in the store under the name in the table.
        keras: Whether to predict with the Keras model as well, if Keras is installed.

    Raises:
        RequestError: There is no such table, row or model, or the folder that was scored is missing.
        WorkError: A part or the bundle is damaged.
    """
    manifest, row = read_table(predictions, lambda table: (table.manifest, _require_row(table, image)))
    request = manifest["request"]
    bundle = _require_bundle(store, model, request)
    source = source_of_table(request)
    if not source.root.exists():
        raise RequestError(
            f"{source.root}, the folder or archive that was scored, does not exist",
            "the images that were scored",
            "Restore them, or run the command on the machine that has it.",
        )
    replay = Replay(bundle, source, row, request, manifest["provider"])
    names = [name for name in STAGES if keras or name != "keras"]
    stages = _replay_stages(replay, names)
    reached = {stage.name for stage in stages if stage.found.get("failure") is None}
    tensor = replay.decoded.pixels if "tensor" in reached else None
    return Explanation(row["image_path"], tuple(stages), tensor)


def _replay_stages(replay: Replay, names: Sequence[str]) -> list[Stage]:
    stages = []
    # An unknown code, from another version, is treated as a decoding failure.
    fails_in = FAILS_IN.get(replay.failure, "tensor") if replay.failure else None
    for name in names:
        try:
            found, row = STAGES[name](replay)
        except ImageFailure as failure:
            found = {"failure": str(failure.code), "words": failure.reason}
            stages.append(_stage(name, found, {"failure": replay.failure}))
            break
        if name == fails_in:
            found, row = {**found, "failure": None}, {**row, "failure": replay.failure}
        stages.append(_stage(name, found, row))
    return stages


def _stage(name: str, found: Facts, row: Facts) -> Stage:
    if not row:
        return Stage(name, found, row, "not recorded")
    return Stage(name, found, row, "differs" if _differing(found, row) else "same")


def _differing(found: Facts, row: Facts) -> tuple[str, ...]:
    tolerance = found.get("tolerance", 0.0)
    return tuple(name for name, value in row.items() if not _agree(found.get(name), value, tolerance))


def _agree(found: Any, recorded: Any, tolerance: float) -> bool:
    if isinstance(found, list) and isinstance(recorded, list):
        pairs = zip(found, recorded, strict=False)
        return len(found) >= len(recorded) and all(_agree(a, b, tolerance) for a, b in pairs)
    if isinstance(found, float) and isinstance(recorded, float):
        return abs(found - recorded) <= tolerance
    return bool(found == recorded)


def _require_row(table: StoredTable, image: str) -> Facts:
    images = absolute(source_of_table(table.manifest["request"]).root)
    for path in _paths_meant(images, image):
        row = find_row(table, path)
        if row is not None:
            return row
    near = nearest_paths(table, _paths_meant(images, image)[-1])
    raise RequestError(
        f"{image}, which has no row in the table in {table.folder}",
        f"an image_path of the table or a file below {images}",
        f"The nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}."
        if near
        else "Look at the table's column `image_path`.",
    )


def _paths_meant(images: str, image: str) -> list[str]:
    """The `image_path` values that a text may mean: itself, a path below the scored folder, a full path."""
    meant = [image, _escape_parts(image.removeprefix("./"))]
    if "://" in images:
        if image.startswith(f"{images.rstrip('/')}/"):
            meant.append(_escape_parts(image[len(images.rstrip("/")) + 1 :]))
    else:
        # If the file itself is a link, the table has the name of the link.
        place = Path(os.path.abspath(image))  # noqa: PTH100  # Unlike Path.absolute, it removes `..`.
        places = (place, place.parent.resolve() / place.name)
        inside = [path.relative_to(images).as_posix() for path in places if path.is_relative_to(images)]
        meant += map(_escape_parts, inside)
    return list(dict.fromkeys(meant))


def _escape_parts(path: str) -> str:
    return "/".join(escape(part) for part in path.split("/"))


def _require_bundle(store: Location, model: str | None, request: Facts) -> ModelBundle:
    try:
        bundle = find_bundle(store, model or request["model"], request.get("precision", "fp32"))
        return bundle.with_embeddings() if request.get("embeddings") else bundle
    except RequestError as error:
        if model is not None:
            raise
        raise RequestError(
            f"a table of {request['model']}: {error.received}",
            "the model that the table was scored with",
            "Give its store with `store`, or the folder of the bundle with `model`.",
        ) from error
