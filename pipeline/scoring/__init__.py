"""The last stages: list a folder of images, score it, commit the prediction table.

`planning` checks the request, `running` lists and scores, `committing` writes the table's manifest. While a
run is under way it works in a hidden folder of the output, `.pixelmill/`; what stood in the output stays
until the new table is whole.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.predictions.columns import RunFacts, TableLayout
from pixelmill.pipeline.predictions.layout import WORK_FOLDER, WORK_PARTS
from pixelmill.pipeline.scoring.options import ScoringOptions, check_names
from pixelmill.pipeline.scoring.passed_over import PassedOver
from pixelmill.pipeline.storage import parse_location


@dataclass(frozen=True)
class ScoringRequest(ScoringOptions):
    """What a scoring run is asked to do, and how: the fields of `ScoringOptions` are its own, too.

    Attributes:
        bundle: The model, in the precision asked for.
        images: The folder to score, all levels of it; on this machine or remote.
        output: The folder of the table; on this machine or remote.
    """

    bundle: ModelBundle
    images: Path
    output: Path

    @classmethod
    def from_options(
        cls, bundle: ModelBundle, images: str | Path, output: str | Path, options: Mapping[str, Any]
    ) -> "ScoringRequest":
        """Make a request of what a user wrote.

        Args:
            bundle: The model.
            images: A folder, or an fsspec address.
            output: Likewise.
            options: Values by the names of the fields of `ScoringOptions`; addresses as text.

        Raises:
            RequestError: There is no option of a name, or no installed package reaches an address.
        """
        check_names(options)
        values = dict(options)
        if values.get("previous"):
            values["previous"] = parse_location(values["previous"])
        if "globs" in values:
            values["globs"] = tuple(values["globs"])
        return cls(bundle, parse_location(images), parse_location(output), **values)

    @property
    def work(self) -> Path:
        """Where the run keeps what is not a table yet."""
        return self.output / WORK_FOLDER

    @property
    def shards(self) -> Path:
        """The listing, cut into files of paths."""
        return self.work / "shards"

    @property
    def parts(self) -> Path:
        """The table's finished parts, until they are committed."""
        return self.work / WORK_PARTS

    @property
    def limits(self) -> DecodingLimits:
        """What decoding one image may cost."""
        return DecodingLimits(self.max_pixels, self.max_image_memory, self.max_image_seconds)

    @property
    def layout(self) -> TableLayout:
        """The columns of the table."""
        return TableLayout(self.top_k, self.labels_from_folders)


@dataclass(frozen=True)
class ScoringPlan:
    """A request that was checked, and the run that answers it.

    Attributes:
        request: What is asked for.
        facts: Of the run.
        labels: The class names, in the order of the probabilities, as they were when the run began.
        image: The tensor an image becomes, likewise.
        started: When, by `time.time`, as other processes compare with.
        clock: The same moment by `time.monotonic`, which nobody sets back.
    """

    request: ScoringRequest
    facts: RunFacts
    labels: tuple[str, ...]
    image: ImageSpec
    started: float
    clock: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class ScoringOutcome:
    """What scoring took.

    Attributes:
        listed: How many images there are.
        shard_keys: What the part of each shard answers, by the shard's number.
        provider: The execution provider onnxruntime used.
        workers: How many processes worked, and in `workers_reason` why so many.
        computed: Images this run answered itself, not found from an interrupted one.
        reused: Images whose answer came from an earlier table.
        passed_over: What the listing left out.
        copied: Images with the bytes of another in the same block of a shard, which was scored once for both.
        seconds: Wall time, and in `startup_seconds` the part of it until the workers were ready.
        stage_seconds: Over all workers, by stage: read, decode, infer, write.
        thumbnails: Small pictures of the least confident images, by path, as far as the workers made them;
            None where none can be made.
    """

    listed: int
    shard_keys: tuple[str, ...]
    provider: str
    workers: int
    workers_reason: str
    computed: int
    reused: int
    copied: int
    passed_over: PassedOver
    seconds: float
    startup_seconds: float
    stage_seconds: dict[str, float]
    thumbnails: Mapping[str, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictionTable:
    """A finished table: its folder, and its manifest's content."""

    folder: Path
    manifest: dict[str, Any]
