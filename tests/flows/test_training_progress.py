"""Training progress in Prefect's UI: training never waits for the server."""

import logging
import os

import pytest

from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.training.callbacks import TrainingProgress
from tests.flows.conftest import free_port

MORE_THAN_A_PIPE_HOLDS = 3000


@pytest.mark.filterwarnings("ignore:Artifact creation outside")
def test_a_missing_server_blocks_neither_the_reports_nor_the_run(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pixelmill.flows import page
    from pixelmill.flows.training_progress import progress_artifact

    monkeypatch.setattr(logging.getLogger("pixelmill.pipeline"), "propagate", True)
    monkeypatch.setattr(page, "_trouble", type(page._trouble)())
    progress = TrainingProgress(
        epoch=1,
        epochs=2,
        step=3,
        steps=4,
        images_per_second=100.0,
        loss=0.5,
        validation_accuracy=None,
        seconds_left=60.0,
    )
    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}),
        progress_artifact("gone-training", "Training") as report,
    ):
        for _ in range(MORE_THAN_A_PIPE_HOLDS):
            report(progress)
        page.show_table("gone-table", [{"a": 1}], "a table")
        page.show_markdown("gone-text", "# text", "a text")
    warnings = [record.getMessage() for record in caplog.records if record.name == "pixelmill.pipeline.page"]
    assert len(warnings) == 1
    assert warnings[0].startswith("some artifacts of this run will be missing in Prefect's UI")


class Fatal:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


@pytest.mark.filterwarnings("ignore:Artifact creation outside")
def test_a_process_that_dies_before_it_begins_does_not_keep_the_run_waiting() -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pixelmill.flows.training_progress import progress_artifact

    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}),
        pytest.raises(WorkError, match="died"),
        progress_artifact("dead-training", "Training") as report,
    ):
        run_in_spawned_process(print, Fatal(), report)
