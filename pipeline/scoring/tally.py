"""Keeping count of a scoring run while it goes on."""

from collections import Counter
from dataclasses import dataclass, field

from pixelmill.pipeline.predictions.parts import read_if_intact
from pixelmill.pipeline.scoring import ScoringPlan
from pixelmill.pipeline.scoring.passed_over import PassedOver
from pixelmill.pipeline.scoring.shards import Shard, find_part
from pixelmill.pipeline.scoring.thumbnails import Thumbnails, Uncertain, merge_uncertain
from pixelmill.pipeline.scoring.worker.worker import ShardResult


@dataclass
class Tally:
    """What a run has done so far."""

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
    answer_keys: list[str] = field(default_factory=list)
    uncertain: tuple[Uncertain, ...] = ()
    thumbnails: Thumbnails = field(default_factory=dict)
    passed_over: PassedOver = field(default_factory=PassedOver)
    seconds: Counter[str] = field(default_factory=Counter)

    def list_shard(self, plan: ScoringPlan, shard: Shard) -> bool:
        """Count a shard, and say whether it is still to be answered."""
        self.listed += shard.images
        self.answer_keys.append(shard.answer_key)
        if is_answered(plan, shard):
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
        # What took a dead worker's place was ready late, and is no part of the start.
        if result.worker not in self.workers and len(self.workers) < self.most_workers:
            self.ready_at = max(self.ready_at, result.ready_at)
        self.workers.add(result.worker)

    @property
    def note(self) -> str:
        """What a progress bar says beside its numbers."""
        notes = [(self.found, "found finished"), (self.reused, "reused"), (self.failed, "failed")]
        return ", ".join(f"{count:,} {what}" for count, what in notes if count)


def is_answered(plan: ScoringPlan, shard: Shard) -> bool:
    """Whether a part answers a shard, without a failed row that is worth another try."""
    found = find_part(plan, shard.number, shard.answer_key)
    rows = read_if_intact(found) if found else None
    return rows is not None and "failed" not in rows["status"].to_pylist()
