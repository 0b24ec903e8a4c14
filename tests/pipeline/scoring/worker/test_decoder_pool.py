"""Decoding in processes ahead of inference, as with a GPU, but on the CPU."""

from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.predictions.parts import part_name, read_part
from pixelmill.pipeline.scoring import ScoringPlan, ScoringRequest
from pixelmill.pipeline.scoring.plan import lock_output, plan_scoring
from pixelmill.pipeline.scoring.shards import growing_limits, write_shards
from pixelmill.pipeline.scoring.worker.decoder_pool import IMAGES_A_SLOT
from pixelmill.pipeline.scoring.worker.worker import Worker
from tests.conftest import write_images

# More groups of files than slots, and a partial one.
IMAGES = 7 * IMAGES_A_SLOT + 5


@pytest.fixture
def request_(bundle: ModelBundle, tmp_path: Path) -> ScoringRequest:
    """A shard with failures, duplicates and ordinary images."""
    paths = write_images(tmp_path / "images", IMAGES)
    paths[3].write_bytes(b"no image")
    paths[IMAGES_A_SLOT].write_bytes(b"")
    paths[200].write_bytes(paths[199].read_bytes())
    paths[300].write_bytes(paths[10].read_bytes())
    return ScoringRequest(bundle=bundle, images=tmp_path / "images", output=tmp_path / "out", top_k=3)


def score(request: ScoringRequest, make: Callable[[ScoringPlan], Worker]) -> list[dict[str, object]]:
    with lock_output(request.output):
        plan = plan_scoring(request)
        assert len(list(write_shards(plan, growing_limits()))) == 1
        worker = make(plan)
        try:
            result = worker.score(0)
        finally:
            worker.close()
        assert (result.rows, result.failed) == (IMAGES, 2)
        assert set(result.seconds) == {"read", "decode", "infer", "write"}
        rows = read_part(request.parts / part_name(0)).drop_columns(["run_id", "scored_at"])
        return list(rows.to_pylist())


@pytest.mark.parametrize("processes", [1, 2])
def test_decoder_processes_do_not_change_the_table(
    request_: ScoringRequest, tmp_path: Path, processes: int
) -> None:
    alone = score(replace(request_, output=tmp_path / "alone"), Worker)
    assert score(request_, lambda plan: Worker(plan, decoders=processes)) == alone


def test_a_crashed_decoder_is_reported_and_leaves_no_part(
    request_: ScoringRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import os\nimport pixelmill.pipeline.images\n"
        "pixelmill.pipeline.images.decode = lambda data, *arguments: os._exit(9)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with pytest.raises(BrokenProcessPool):
        score(request_, lambda plan: Worker(plan, decoders=1))
    assert not list(request_.parts.glob("*.parquet"))
    with pytest.raises(FileNotFoundError):
        pq.read_table(request_.parts / part_name(0))
