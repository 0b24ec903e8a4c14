"""Scoring a folder of images into a prediction table.

`plan` checks the request, `run` lists and scores the images, and `commit` writes the manifest of the table.
A run works in a hidden folder of the output, `.pixelmill/`; an earlier table in the output stays until the
new one is complete.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pixelmill.pipeline.bundles import ModelBundle, Thresholds
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.predictions.columns import RunFacts, TableLayout
from pixelmill.pipeline.predictions.layout import WORK_FOLDER, WORK_PARTS
from pixelmill.pipeline.scoring.options import LOCATIONS, ScoringOptions, check_names
from pixelmill.pipeline.scoring.skipped import SkippedFiles
from pixelmill.pipeline.scoring.sources import ImageSource
from pixelmill.pipeline.storage import Location, parse_location


@dataclass(frozen=True)
class ScoringRequest(ScoringOptions):
    """The parameters of a scoring run, with its options as inherited fields.

    Attributes:
        bundle: The model, in the precision to use.
        images: The folder to score, with all subfolders, or a list of paths; local or remote. `-` is a list
            on standard input.
        output: The folder for the table; local or remote.
    """

    bundle: ModelBundle
    images: Location
    output: Location

    @classmethod
    def from_options(
        cls, bundle: ModelBundle, images: str | Location, output: str | Location, options: Mapping[str, Any]
    ) -> "ScoringRequest":
        """Create a request from a user's input.

        Args:
            bundle: The model.
            images: A folder, a list, or an fsspec address of one.
            output: A folder or an fsspec address.
            options: The values of fields of `ScoringOptions` by name; addresses are strings.

        Raises:
            RequestError: An option is unknown, no installed package supports an address, or the model has no
                embeddings although they are asked for.
        """
        check_names(options)
        values = dict(options)
        place = parse_location(output)
        if values.get("run_date"):
            # Imported here, as that module knows this class.
            from pixelmill.pipeline.scoring.nights import date_run

            place, values["previous"] = date_run(place, values["run_date"], values.get("previous"))
        for name in LOCATIONS:
            if values.get(name):
                values[name] = parse_location(values[name])
        if "globs" in values:
            values["globs"] = tuple(values["globs"])
        if values.get("embeddings"):
            bundle = bundle.with_embeddings()
        return cls(bundle, parse_location(images), place, **values)

    @property
    def kept(self) -> int:
        """How many predictions are kept of each image: all, if it may have several labels."""
        return len(self.bundle.labels()) if self.bundle.multi_label else self.top_k

    @property
    def work(self) -> Location:
        """The folder for intermediate files of the run."""
        return self.output / WORK_FOLDER

    @property
    def shards(self) -> Location:
        """The folder of the listing, which is split into shards."""
        return self.work / "shards"

    @property
    def parts(self) -> Location:
        """The folder of finished parts that are not committed yet."""
        return self.work / WORK_PARTS

    @property
    def limits(self) -> DecodingLimits:
        """The limits on decoding one image."""
        return DecodingLimits(self.max_pixels, self.max_image_memory, self.max_image_seconds)


@dataclass(frozen=True)
class ScoringPlan:
    """A validated request, and its run.

    Attributes:
        request: The parameters.
        facts: The columns that are the same in every row of the run.
        labels: The class names when the run started, in the order of the probabilities.
        image: The shape of the model's input when the run started.
        thresholds: The decision threshold of each class when the run started; empty if the model has none.
        started: The start time by `time.time`, which other processes can compare with.
        source: Where the images are.
        clock: The start time by `time.monotonic`, which is never set back.
        multi_label: Whether an image may have several labels.
    """

    request: ScoringRequest
    facts: RunFacts
    labels: tuple[str, ...]
    image: ImageSpec
    started: float
    source: ImageSource
    clock: float = field(default_factory=time.monotonic)
    thresholds: Thresholds = ()
    multi_label: bool = False

    @property
    def layout(self) -> TableLayout:
        """The optional columns of the table."""
        request = self.request
        listed = self.source.listed
        return TableLayout(
            top_k=request.top_k,
            true_labels=request.labels_from_folders or request.label_column is not None,
            decisions=bool(self.thresholds),
            embedding_size=request.bundle.embedding_size,
            passed_through=listed.passed_schema if listed and listed.columns else "",
            seen=request.mark_training_images,
            multi_label=self.multi_label,
        )


@dataclass(frozen=True)
class ScoringOutcome:
    """The result of scoring all shards.

    Attributes:
        listed: The number of images.
        shard_keys: The key that the part of each shard must carry, in the order of the shards.
        provider: The execution provider that onnxruntime used.
        workers: The number of worker processes.
        workers_reason: Why there are this many.
        computed: The number of images that this run predicted.
        reused: The number of images whose prediction was taken from an earlier table.
        copied: The number of images with the same bytes as another one in the same block of a shard.
        skipped: The files and folders that are not scored.
        seconds: Wall time.
        startup_seconds: Wall time until the workers were ready.
        stage_seconds: Time over all workers by stage: read, decode, infer, write.
        thumbnails: Thumbnails of the least confident images by path, if the workers made them; None where an
            image has no thumbnail.
    """

    listed: int
    shard_keys: tuple[str, ...]
    provider: str
    workers: int
    workers_reason: str
    computed: int
    reused: int
    copied: int
    skipped: SkippedFiles
    seconds: float
    startup_seconds: float
    stage_seconds: dict[str, float]
    thumbnails: Mapping[str, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictionTable:
    """A finished table: its folder, and the content of its manifest."""

    folder: Location
    manifest: dict[str, Any]
