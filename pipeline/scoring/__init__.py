"""The last stages: list a folder of images, score it, commit the prediction table.

`planning` lists, `running` scores, `committing` writes the table's manifest. While a run is under way it
works in a hidden folder of the output, `.pixelmill/`; what stood in the output stays until the commit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.export import ModelBundle
from pipeline.images import DEFAULT_MAX_PIXELS
from pipeline.inference import Provider
from pipeline.predictions import WORK_FOLDER, RunFacts, TableFormat


@dataclass(frozen=True)
class ScoringRequest:
    """What a scoring run is asked to do.

    Attributes:
        bundle: The model.
        images: The folder to score, all levels of it.
        output: The folder of the table.
        format: Of the table.
        top_k: How many choices a row keeps, from 1.
        workers: Processes that decode and infer; None for one a processor that may be used.
        provider: Where onnxruntime runs.
        max_failure_rate: The largest share of failed rows that is no failure of the run.
        max_pixels: The largest width times height that is decoded.
        fresh: Replace what the output holds, whatever run it is from.
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
    fresh: bool = False

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
        return self.work / "parts"


@dataclass(frozen=True)
class ScoringPlan:
    """A request whose images are listed: how many, in how many shards, under which run."""

    request: ScoringRequest
    facts: RunFacts
    listed: int
    shards: int
    started: float


@dataclass(frozen=True)
class ScoringOutcome:
    """What scoring took.

    Attributes:
        provider: The execution provider onnxruntime used.
        workers: How many processes worked, and in `workers_reason` why so many.
        computed: Images this run answered itself, not found from an interrupted one.
        seconds: Wall time.
        stage_seconds: Over all workers, by stage: read, decode, infer, write.
    """

    provider: str
    workers: int
    workers_reason: str
    computed: int
    seconds: float
    stage_seconds: dict[str, float]


@dataclass(frozen=True)
class PredictionTable:
    """A finished table: its folder, and its manifest's content."""

    folder: Path
    manifest: dict[str, Any]
