"""What would change in production: a version and the champion predict a sample of the last batch."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.artifacts import scratch_folder
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.datasets.exclusions import Exclusions, read_exclusions
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.evaluation.intervals import interval_of_proportion
from pixelmill.pipeline.promotion.bars import Verdict
from pixelmill.pipeline.promotion.pictures import encode_pictures
from pixelmill.pipeline.promotion.prediction import FilePredictions, predict_files
from pixelmill.pipeline.scoring.production_sample import (
    BatchFacts,
    ProductionSample,
    read_production_sample,
)
from pixelmill.pipeline.scoring.worker.source_reader import read_images
from pixelmill.pipeline.storage import Location

_log = getLogger(__name__)
_MAX_PICTURES = 24
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Change:
    """How many images of the sample would get the label `after` in place of `before`."""

    before: str
    after: str
    images: int


@dataclass(frozen=True)
class ChangedImage:
    """An image whose label would change; `probability` is that of the new label, `picture` a data URL."""

    path: str
    before: str
    after: str
    probability: float
    picture: str = ""


@dataclass(frozen=True)
class Preview:
    """What a version would change in the last production batch.

    Attributes:
        batch: The batch that the sample was drawn from.
        images: Number of images of the sample that both versions predicted.
        missing: Number of images of the sample that are gone, have changed or cannot be read.
        changed: Number of images that would get another label.
        share: Their share; None if no image is left.
        interval: The 95% confidence interval of the share in the whole batch (Wilson); the share itself if
            the sample is the whole batch.
        changes: From what to what, the most frequent first.
        examples: Some of the images, those first whose new label is the most probable.
    """

    batch: BatchFacts
    images: int
    missing: int
    changed: int
    share: float | None
    interval: tuple[float, float] | None
    changes: tuple[Change, ...]
    examples: tuple[ChangedImage, ...]

    def to_json(self) -> dict[str, Any]:
        """The preview without thumbnails."""
        facts = asdict(self)
        for example in facts["examples"]:
            del example["picture"]
        return facts


def preview_changes(store: Location, bundle: ModelBundle, champion: ModelBundle | None) -> Preview | None:
    """Predict the sample of the last production batch with a version and with the champion.

    Returns:
        The preview; None without a champion or a sample. It never fails the gate: if the sample cannot be
        predicted, the reason is logged.
    """
    sample = read_production_sample(store, bundle.name) if champion is not None else None
    if sample is None or champion is None:
        return None
    with scratch_folder("production-sample") as folder:
        try:
            found = dict(_fetch(sample, read_exclusions(store), folder))
            files = list(found.values())
            new, old = predict_files([bundle, champion], files, "predict the last production batch")
        except (PixelmillError, OSError) as error:
            _log.warning("no preview of the last production batch: %s", error)
            return None
        return _compare(sample, list(found), files, new, old)


def judge_changes(preview: Preview | None, promotion: PromotionSpec) -> Verdict | None:
    """The bar `changed_labels`: refused only if the whole interval is above the limit; None without one."""
    limit = promotion.max_changed_labels
    if limit is None:
        return None
    share = preview.share if preview else None
    low = preview.interval[0] if preview and preview.interval else 0.0
    return Verdict(
        bar="changed_labels",
        scope="last production batch",
        images=preview.images if preview else 0,
        value=share,
        interval=preview.interval if preview else None,
        champion=None,
        limit=f"at most {limit:.4f}",
        verdict="not judged" if share is None else "refused" if low > limit + _ROUNDING else "passed",
        note="" if share is not None else "there is no sample of a production batch",
    )


def _fetch(sample: ProductionSample, excluded: Exclusions, folder: Path) -> Iterator[tuple[str, Path]]:
    """Local copies of the images that are still there unchanged and not excluded, by path."""
    source = sample.batch.image_source
    known = zip(sample.paths, sample.sha256, strict=True)
    sha256 = {path: content for path, content in known if content not in excluded}
    for number, (path, content) in enumerate(read_images(source, list(sha256))):
        if hashlib.sha256(content).hexdigest() == sha256[path]:
            copy = folder / f"{number:05d}"
            copy.write_bytes(content)
            yield path, copy


def _compare(
    sample: ProductionSample, paths: list[str], files: list[Path], new: FilePredictions, old: FilePredictions
) -> Preview:
    readable = [at for at in range(len(paths)) if at not in new.failures and at not in old.failures]
    before, after = old.names(), new.names()
    changed = [at for at in readable if before[at] != after[at]]
    counts = Counter((before[at], after[at]) for at in changed)
    certain = sorted(changed, key=lambda at: -float(np.max(new.probabilities[at])))[:_MAX_PICTURES]
    pictures = encode_pictures([files[at] for at in certain])
    share = len(changed) / len(readable) if readable else None
    interval: tuple[float, float] | None = None
    if share is not None:
        is_whole = len(readable) == sample.batch.scored
        interval = (share, share) if is_whole else interval_of_proportion(len(changed), len(readable))
    return Preview(
        batch=sample.batch,
        images=len(readable),
        missing=len(sample.paths) - len(readable),
        changed=len(changed),
        share=share,
        interval=interval,
        changes=tuple(Change(*pair, images) for pair, images in counts.most_common()),
        examples=tuple(
            ChangedImage(paths[at], before[at], after[at], float(new.probabilities[at].max()), picture)
            for at, picture in zip(certain, pictures, strict=True)
        ),
    )
