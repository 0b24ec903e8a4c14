"""What `pixelmill status` says needs a person: one line each, with what to do."""

from pixelmill.flows.attention import disk_in_need, drift_in_need, models_in_need
from pixelmill.pipeline.status import DiskStatus, DriftStatus, ModelStatus

GIB = 2**30


def test_only_a_model_without_an_intact_champion_needs_a_person() -> None:
    good = ModelStatus("digits", 2, champion=2)
    bad = ModelStatus("pets", 3, error="no version is the champion")
    assert list(models_in_need([good, bad])) == [
        "pets: no version is the champion. See `pixelmill models`, and promote or restore a version."
    ]


def test_only_a_table_that_drifted_needs_a_person() -> None:
    when = "2026-11-26T05:00:00+00:00"
    stable = DriftStatus("tables/a", "digits@1", when, "stable", ())
    drifted = DriftStatus("tables/b", "digits@1", when, "drifted", ("classes", "brightness"))
    (line,) = drift_in_need([stable, drifted])
    assert line.startswith("tables/b has drifted from the test images (classes, brightness).")


def test_a_nearly_full_disk_needs_a_person() -> None:
    assert list(disk_in_need(DiskStatus("artifacts", {}, 50 * GIB, 100 * GIB))) == []
    (line,) = disk_in_need(DiskStatus("artifacts", {}, 2 * GIB, 100 * GIB))
    assert line == "only 2.1 GB free for artifacts. `pixelmill prune` lists what may go."
