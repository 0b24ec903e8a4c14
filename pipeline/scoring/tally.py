"""Counters of a scoring run in progress."""

from collections import Counter
from dataclasses import dataclass, field

from pixelmill.pipeline.predictions.parts import read_if_intact
from pixelmill.pipeline.scoring import ScoringPlan
from pixelmill.pipeline.scoring.shards import Shard, find_part
from pixelmill.pipeline.scoring.skipped import SkippedFiles
from pixelmill.pipeline.scoring.thumbnails import Thumbnails, Uncertain, merge_uncertain
from pixelmill.pipeline.scoring.worker.worker import ShardResult


@dataclass
class Tally:
    """Progress of a run."""

    listed: int = 0
    found: int = 0
    failed: int = 0
    reused: int = 0
    copied: int = 0
    computed: int = 0
    due: int = 0
    ready_at: float = 0.0
    done_at: float = 0.0
    most_workers: int = 1
    providers: set[str] = field(default_factory=set)
    workers: set[str] = field(default_factory=set)
    shard_keys: list[str] = field(default_factory=list)
    uncertain: tuple[Uncertain, ...] = ()
    thumbnails: Thumbnails = field(default_factory=dict)
    skipped: SkippedFiles = field(default_factory=SkippedFiles)
    seconds: Counter[str] = field(default_factory=Counter)

    def list_shard(self, plan: ScoringPlan, shard: Shard) -> bool:
        """Count a listed shard; returns whether it still has to be scored."""
        self.listed += shard.images
        self.shard_keys.append(shard.shard_key)
        if is_scored(plan, shard):
            self.found += shard.images
            return False
        self.due += 1
        return True

    def add(self, result: ShardResult) -> None:
        """Count a shard's result."""
        self.computed += result.computed
        self.failed += result.failed
        self.reused += result.reused
        self.copied += result.copied
        self.seconds.update(result.seconds)
        self.uncertain = merge_uncertain(self.uncertain, result.uncertain)
        self.providers.add(result.provider)
        # A worker that replaces a crashed one is not part of the startup.
        if result.worker not in self.workers and len(self.workers) < self.most_workers:
            self.ready_at = max(self.ready_at, result.ready_at)
        self.workers.add(result.worker)

    @property
    def note(self) -> str:
        """The text beside the numbers of the progress bar."""
        notes = [(self.found, "already done"), (self.reused, "reused"), (self.failed, "failed")]
        return ", ".join(f"{count:,} {what}" for count, what in notes if count)


def is_scored(plan: ScoringPlan, shard: Shard) -> bool:
    """Whether the shard has an intact part without failed rows, which would be retried."""
    found = find_part(plan, shard.number, shard.shard_key)
    rows = read_if_intact(found) if found else None
    return rows is not None and "failed" not in rows["status"].to_pylist()
