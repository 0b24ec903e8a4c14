"""The listing in shards: no image lost or duplicated, and each part records its shard."""

import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.predictions.columns import Predictions, RunFacts
from pixelmill.pipeline.predictions.parts import file_facts, part_name, writing_part
from pixelmill.pipeline.scoring import ScoringPlan, ScoringRequest
from pixelmill.pipeline.scoring.listing import ListedImage, list_images
from pixelmill.pipeline.scoring.shards import (
    BLOCK,
    FIRST_LIMIT,
    Shard,
    ShardLimit,
    cut_images,
    find_part,
    growing_limits,
    read_shard,
    shard_images,
    shard_key,
    write_shards,
)
from pixelmill.pipeline.scoring.sources import ImageSource
from pixelmill.pipeline.storage import local_path

LIMITS = st.tuples(st.integers(1, 4), st.integers(1, 40) | st.just(float("inf")))


def plan_of(folder: Path, run_id: str = "run") -> ScoringPlan:
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    bundle = ModelBundle(folder / "model", "digits", 1, "0" * 64)
    facts = RunFacts("digits", "1", "0" * 64, run_id, "2026-01-31T23:59:59Z")
    image = ImageSpec(height=8, width=8, channels=1)
    request = ScoringRequest(bundle, images, folder / "out")
    return ScoringPlan(request, facts, ("0", "1"), image, 0.0, ImageSource.of_folder(images))


def fill(plan: ScoringPlan, *sizes: int) -> None:
    for number, size in enumerate(sizes):
        (plan.request.images / f"{number:03d}.png").write_bytes(bytes(size))


def write_part(folder: Path, number: int, key: str) -> Path:
    plan = plan_of(folder.parent)
    path = folder / part_name(number)
    with writing_part(path, plan.layout, key) as part:
        table = Predictions(["a.png"], 1).to_table(["cat"], plan.facts, plan.layout)
        part.write(table, file_facts([(1, 2, 3)]))
    return path


def test_shards_grow_up_to_a_limit() -> None:
    limits = list(itertools.islice(growing_limits(), 2000))
    images, size = zip(*limits, strict=True)
    assert limits[0] == FIRST_LIMIT
    assert list(images) == sorted(images)
    assert {later // earlier for earlier, later in itertools.pairwise(images)} == {1, 2}
    assert {size / images for images, size in limits} == {FIRST_LIMIT[1] / FIRST_LIMIT[0]}
    assert images[-1] == images[1000] == 16 * FIRST_LIMIT[0]
    # There are enough small shards for many workers, but ten million images are less than a thousand parts.
    assert images[:64] == (FIRST_LIMIT[0],) * 64
    assert sum(images[:1000]) > 10_000_000
    assert size[-1] < 1 << 30


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), max_size=25),
    cycle=st.lists(LIMITS, min_size=1, max_size=3),
    whole=st.integers(1, 4),
)
def test_shards_contain_the_listing_once_and_in_order(
    sizes: list[int], cycle: list[ShardLimit], whole: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    plan = plan_of(tmp_path_factory.mktemp("plan"))
    fill(plan, *sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pixelmill.pipeline.scoring.shards._WHOLE_BATCHES", whole)
        shards = list(write_shards(plan, itertools.cycle(cycle)))
    assert [shard.number for shard in shards] == list(range(len(shards)))
    contents = [shard_images(plan, shard.number) for shard in shards]
    assert [len(images) for images in contents] == [shard.images for shard in shards]
    assert list(itertools.chain(*contents)) == list(list_images(plan.request.images))
    assert [shard_key(plan, shard.number) for shard in shards] == [shard.shard_key for shard in shards]
    assert len({shard.shard_key for shard in shards}) == len(shards)
    for images, limit in zip(contents, itertools.cycle(cycle), strict=False):
        held = [image.size for image in images]
        full = [
            count >= limit[0] or (sum(held[:count]) >= limit[1] and count % whole == 0)
            for count in range(1, len(held) + 1)
        ]
        # A shard is full with its last image at the earliest.
        assert not any(full[:-1])
        assert full[-1] or images is contents[-1]


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 5 << 20), max_size=400),
    limit=st.tuples(st.integers(1, 99), st.integers(1, 40 << 20)),
)
def test_the_last_shards_become_smaller(sizes: list[int], limit: ShardLimit) -> None:
    images = [ListedImage(f"{place:04d}", size, 0, 0) for place, size in enumerate(sizes)]
    plain = [len(shard) for shard in cut_images(images, itertools.repeat(limit))]
    shards = list(cut_images(images, itertools.repeat(limit), tapers=True))
    assert [image for shard in shards for image in shard] == images
    tapered = [len(shard) for shard in shards]
    if len(plain) <= 2:
        assert tapered == plain
        return
    assert tapered[: len(plain) - 2] == plain[:-2]
    end = tapered[len(plain) - 2 :]
    assert end == sorted(end, reverse=True)
    # The first of them is a quarter, rounded up to a step.
    assert end[0] <= sum(end) / 4 + max(sum(end) / 16, 8)


def test_an_empty_folder_has_no_shards(tmp_path: Path) -> None:
    assert list(write_shards(plan_of(tmp_path), growing_limits())) == []


def test_shards_are_listed_lazily(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    for name in ("a/1.png", "b/1.png"):
        (plan.request.images / name).parent.mkdir()
        (plan.request.images / name).touch()
    shards = write_shards(plan, itertools.repeat((1, 1)))
    next(shards)
    assert len(list(plan.request.shards.iterdir())) == 1
    (plan.request.images / "b/2.png").touch()
    assert len(list(shards)) == 2


def test_a_large_shard_is_read_block_by_block(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    (plan.request.images / "a.png").touch()
    for number in range(BLOCK + 2):
        os.link(
            local_path(plan.request.images) / "a.png", local_path(plan.request.images) / f"b{number:06d}.png"
        )
    (shard,) = write_shards(plan, itertools.repeat((10**6, 10**9)))
    assert shard.images == BLOCK + 3
    blocks = list(read_shard(plan, 0))
    assert [len(block) for block in blocks] == [BLOCK, 3]
    assert [image for block in blocks for image in block] == list(list_images(plan.request.images))


def test_the_facts_of_an_image_are_preserved_in_a_shard(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    with open(os.fsencode(local_path(plan.request.images)) + b"/\xff\n%41 \xc3\xa9.png", "wb"):
        pass
    (plan.request.images / "\u2028.png").touch()
    os.mkfifo(local_path(plan.request.images) / "pipe.png")
    far = local_path(plan.request.images) / "far.png"
    far.touch()
    os.utime(far, ns=(0, 10**19))
    (shard,) = write_shards(plan, growing_limits())
    assert shard_images(plan, 0) == list(list_images(plan.request.images))
    assert {image.problem for image in shard_images(plan, shard.number)} == {None, "a pipe"}


def only_shard(plan: ScoringPlan) -> Shard:
    (shard,) = write_shards(plan, growing_limits())
    return shard


def test_a_key_depends_on_the_run_and_the_files(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    fill(plan, 5, 6, 7)
    file = local_path(plan.request.images) / "001.png"
    keys = [only_shard(plan).shard_key]
    assert only_shard(plan).shard_key == keys[0]

    def is_new(key: str) -> bool:
        keys.append(key)
        return key not in keys[:-1]

    before = file.stat().st_mtime_ns
    file.write_bytes(bytes(8))
    os.utime(file, ns=(before, before))
    assert is_new(only_shard(plan).shard_key), "its size changed"
    os.utime(file, ns=(before, before + 1))
    assert is_new(only_shard(plan).shard_key), "its time changed"
    file.rename(file.with_name("0010.png"))
    assert is_new(only_shard(plan).shard_key), "its name changed"
    (plan.request.images / "000.png").unlink()
    assert is_new(only_shard(plan).shard_key), "there is one less"
    other = replace(plan, facts=replace(plan.facts, run_id="another"))
    assert is_new(only_shard(other).shard_key), "the run is another"


def test_a_replaced_file_changes_the_key(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    fill(plan, 5)
    file = local_path(plan.request.images) / "000.png"
    key = only_shard(plan).shard_key
    before = file.stat()
    beside = file.with_name("beside")
    beside.write_bytes(b"other")
    os.utime(beside, ns=(before.st_mtime_ns, before.st_mtime_ns))
    beside.replace(file)
    assert only_shard(plan).shard_key != key


def test_a_part_is_found_only_by_its_key(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert find_part(plan, 0, "key") is None
    part = write_part(local_path(plan.request.parts), 0, "key")
    assert find_part(plan, 0, "key") == part
    assert find_part(plan, 0, "other") is None
    assert find_part(plan, 1, "key") is None


def test_a_part_without_a_key_is_never_found(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    part = write_part(local_path(plan.request.parts), 0, "")
    assert find_part(plan, 0, "") is None
    part.write_bytes(b"no part at all")
    assert find_part(plan, 0, "key") is None
    part.unlink()
    part.mkdir()
    assert find_part(plan, 0, "key") is None
