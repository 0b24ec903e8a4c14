"""The last stages: list a folder of images, score it, commit the prediction table.

`planning` checks the request, `running` lists and scores, `committing` writes the table's manifest. While a
run is under way it works in a hidden folder of the output, `.pixelmill/`; what stood in the output stays
until the new table is whole.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.decoding import DEFAULT_MAX_MEMORY, DEFAULT_MAX_SECONDS, DecodingLimits
from pixelmill.pipeline.images import DEFAULT_MAX_PIXELS
from pixelmill.pipeline.inference import Provider
from pixelmill.pipeline.predictions.columns import RunFacts, TableLayout
from pixelmill.pipeline.predictions.layout import WORK_FOLDER, WORK_PARTS, TableFormat
from pixelmill.pipeline.scoring.passed_over import PassedOver

Engine = Literal["local", "dask"]


@dataclass(frozen=True)
class ScoringRequest:
    """What a scoring run is asked to do.

    Attributes:
        bundle: The model, in the precision asked for.
        images: The folder to score, all levels of it; on this machine or remote.
        output: The folder of the table; on this machine or remote.
        format: Of the table.
        top_k: How many choices a row keeps, from 1.
        workers: Processes that decode and infer; None for one a processor that may be used.
        provider: Where onnxruntime runs.
        max_failure_rate: The largest share of failed rows that is no failure of the run.
        max_pixels: The largest width times height that is decoded.
        max_image_memory: How many bytes of memory decoding one image may take.
        max_image_seconds: How long decoding one image may take.
        globs: Shell patterns of the file names to list, instead of the images' extensions.
        labels_from_folders: Whether the first folder of an image's path is its true label.
        previous: An earlier table whose rows are taken where model, preprocessing and bytes are the same.
        trust_mtime: Take rows of `previous` also where size, time and inode alone are the same.
        fresh: Replace what the output holds, whatever run it is from.
        engine: Processes of this machine, or a Dask cluster.
        dask_address: Of the scheduler, where the engine is Dask.
    """

    bundle: ModelBundle
    images: Path
    output: Path
    format: TableFormat = "parquet"
    top_k: int = 1
    workers: int | None = None
    provider: Provider = "cpu"
    max_failure_rate: float = 0.01
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_image_memory: int = DEFAULT_MAX_MEMORY
    max_image_seconds: float = DEFAULT_MAX_SECONDS
    globs: tuple[str, ...] = ()
    labels_from_folders: bool = False
    previous: Path | None = None
    trust_mtime: bool = False
    fresh: bool = False
    engine: Engine = "local"
    dask_address: str | None = None

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
        copied: Images of the same bytes as another of this run, which was scored once for all.
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
