"""Splits that never move: by group, near-duplicate component and content, with a memory of decisions."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.datasets import SplitName
from pixelmill.pipeline.datasets.catalogue import Part
from pixelmill.pipeline.datasets.contents import as_contents, as_hexadecimal
from pixelmill.pipeline.datasets.decisions import OPEN, SPLITS, Decisions
from pixelmill.pipeline.datasets.splits import LEFT_OUT, Division, Fractions, Undivided, assign_splits
from pixelmill.pipeline.errors import RequestError

# Imports and a busy machine take time, which says nothing of what is tested.
untimed = settings(deadline=None)

FIFTH = Fractions(0.2, 0.1)
SHARES = st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.5])
FRACTIONS = st.builds(Fractions, SHARES, SHARES)


@dataclass(frozen=True)
class Image:
    content: int
    label: int = 0
    name: str = ""
    part: Part | None = None
    group: str | None = None
    component: int = -1


def sha256(content: int) -> str:
    return hashlib.sha256(str(content).encode()).hexdigest()


def divide(
    images: Sequence[Image],
    fractions: Fractions = FIFTH,
    decided: Mapping[str, SplitName] | None = None,
) -> Division:
    names = [image.name or f"{image.content}.png" for image in images]
    groups = sorted({image.group for image in images if image.group is not None})
    table = Undivided(
        contents=as_contents([sha256(image.content) for image in images]),
        labels=np.array([image.label for image in images], np.int64),
        names=lambda rows: [names[row] for row in rows],
        parts=np.array(
            [OPEN if image.part is None else SPLITS.index(image.part) for image in images], np.int8
        ),
        groups=np.array(
            [-1 if image.group is None else groups.index(image.group) for image in images], np.int64
        ),
        components=np.array([image.component for image in images], np.int64),
    )
    given = dict(decided or {})
    sides = np.array([SPLITS.index(split) for split in given.values()], np.int8)
    return assign_splits(table, fractions, Decisions.nothing().updated(as_contents(list(given)), sides))


def splits_of(division: Division) -> list[SplitName | None]:
    """The split of each image; None for one that is left out."""
    return [None if side == LEFT_OUT else SPLITS[side] for side in division.sides.tolist()]


def units_of(division: Division) -> dict[str, str]:
    """The key of the unit of each content."""
    return dict(zip(division.decisions, as_hexadecimal(division.units), strict=True))


def hold_out(contents: Mapping[str, int], fraction: float, salt: str) -> set[str]:
    """The rule of datasets that do not grow: of each class, the contents with the lowest hashes."""
    of_class: dict[int, list[str]] = defaultdict(list)
    for found, label in contents.items():
        of_class[label].append(found)
    aside: set[str] = set()
    for members in of_class.values():
        order = sorted(members, key=lambda item: hashlib.sha256(f"{salt}{item}".encode()).digest())
        aside.update(order[: min(max(1, round(len(order) * fraction)), len(order) - 1)])
    return aside


SINGLE = st.builds(Image, st.integers(0, 10**6), st.integers(0, 3))
SINGLES = st.lists(SINGLE, min_size=1, max_size=120, unique_by=lambda image: image.content)
# Groups are within a class, as those of patients with one diagnosis; copies repeat a content.
GROUPED = st.lists(
    st.builds(
        lambda content, group, component: Image(
            content,
            content % 3,
            "",
            None,
            f"{content % 3}-{group}" if group else None,
            component * 3 + content % 3,
        ),
        st.integers(0, 60),
        st.integers(0, 12),
        st.integers(0, 40),
    ),
    min_size=1,
    max_size=100,
)


def linked_units(images: Sequence[Image]) -> list[set[int]]:
    """The contents that must be on one side, by merging until nothing changes."""
    links: dict[object, set[int]] = defaultdict(set)
    for image in images:
        links[image.content].add(image.content)
        if image.group is not None:
            links["group", image.group].add(image.content)
        if image.component >= 0:
            links["component", image.component].add(image.content)
    units: list[set[int]] = []
    for members in links.values():
        touching = [unit for unit in units if unit & members]
        units = [unit for unit in units if not unit & members] + [members.union(*touching)]
    return units


@untimed
@given(SINGLES, FRACTIONS)
def test_an_empty_ledger_gives_the_splits_of_datasets_that_do_not_grow(
    images: list[Image], fractions: Fractions
) -> None:
    sizes = Counter(image.label for image in images)
    # A class keeps an image for validation even where its share of test images would leave none.
    assume(all(round(size * (fractions.test or 0)) <= max(1, size - 2) for size in sizes.values()))
    contents = {sha256(image.content): image.label for image in images}
    test = hold_out(contents, fractions.test or 0, "test")
    rest = {found: label for found, label in contents.items() if found not in test}
    validation = hold_out(rest, fractions.validation, "validation")
    division = divide(images, fractions)
    for found, split in division.decisions.items():
        assert split == ("test" if found in test else "validation" if found in validation else "train")
    assert not division.warnings


@untimed
@given(GROUPED, FRACTIONS, st.randoms(use_true_random=False))
def test_neither_order_nor_names_matter(images: list[Image], fractions: Fractions, chance: object) -> None:
    shuffled = [replace(image, name=f"elsewhere/{image.content}") for image in images]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert divide(shuffled, fractions).decisions == divide(images, fractions).decisions


@untimed
@given(GROUPED, FRACTIONS)
def test_equal_contents_groups_and_near_duplicates_are_on_one_side(
    images: list[Image], fractions: Fractions
) -> None:
    division = divide(images, fractions)
    units = units_of(division)
    for unit in linked_units(images):
        assert len({division.decisions[sha256(content)] for content in unit}) == 1
        assert {units[sha256(content)] for content in unit} == {min(map(sha256, unit))}
    for image, split in zip(images, splits_of(division), strict=True):
        assert split == division.decisions[sha256(image.content)]


@untimed
@given(GROUPED, FRACTIONS)
def test_a_class_of_three_units_is_in_every_split(images: list[Image], fractions: Fractions) -> None:
    division = divide(images, fractions)
    units = Counter(min(unit) % 3 for unit in linked_units(images))
    for label, count in units.items():
        found = {
            split for image, split in zip(images, splits_of(division), strict=True) if image.label == label
        }
        assert len(found) == min(count, 3)
        assert "train" in found


GROWTH = st.tuples(GROUPED, GROUPED, FRACTIONS, FRACTIONS)


@untimed
@given(GROWTH, st.randoms(use_true_random=False))
def test_nothing_moves_while_images_come_go_and_change(
    growth: tuple[list[Image], list[Image], Fractions, Fractions], chance: object
) -> None:
    before, more, fractions, later = growth
    first = divide(before, fractions)
    kept = [
        replace(image, name=f"new/{image.content}", label=chance.choice([image.label, 0, 1]))  # type: ignore[attr-defined]
        for image in before
        if chance.random() < 0.8  # type: ignore[attr-defined]
    ]
    second = divide([*more, *kept], later, first.decisions)
    for found, split in second.decisions.items():
        assert first.decisions.get(found, split) == split
    left_out = [
        image for image, split in zip([*more, *kept], splits_of(second), strict=True) if split is None
    ]
    assert not {sha256(image.content) for image in left_out} & first.decisions.keys()
    assert bool(left_out) == any("left out" in line for line in second.warnings)


@pytest.mark.parametrize("size", [50, 73, 200, 1000])
@pytest.mark.parametrize("fractions", [Fractions(0.2, 0.1), Fractions(0.1, 0.1), Fractions(0.3, 0.2)])
def test_twenty_growths_move_nothing_and_keep_the_shares(size: int, fractions: Fractions) -> None:
    images = [Image(content, content % 2) for content in range(2 * size)]
    decided: Mapping[str, SplitName] = {}
    for growth in range(21):
        division = divide(images, fractions, decided)
        assert decided.items() <= division.decisions.items()
        decided = division.decisions
        for label in (0, 1):
            counts = Counter(
                split
                for image, split in zip(images, splits_of(division), strict=True)
                if image.label == label
            )
            total = counts.total()
            test, rest = fractions.test or 0, total - counts["test"]
            assert counts["test"] == pytest.approx(total * test, rel=0.2)
            assert counts["validation"] == pytest.approx(rest * fractions.validation, rel=0.2)
        more = max(1, len(images) // 20)
        images += [Image(10**6 * (growth + 1) + number, number % 2) for number in range(more)]


def test_what_an_earlier_run_decided_leads_its_unit() -> None:
    decided: dict[str, SplitName] = {sha256(1): "test"}
    images = [
        Image(1, group="a"),
        Image(2, group="a", component=7),
        Image(3, component=7),
        Image(4),
        Image(5),
    ]
    division = divide(images, FIFTH, decided)
    assert splits_of(division)[:3] == ["test"] * 3


def test_a_new_image_that_connects_two_splits_is_left_out_and_named() -> None:
    decided: dict[str, SplitName] = {sha256(1): "test", sha256(2): "train"}
    images = [
        Image(1, name="a.png", group="one"),
        Image(2, name="b.png", component=4),
        Image(3, name="bridge.png", group="one", component=4),
        Image(4),
        Image(5),
    ]
    division = divide(images, FIFTH, decided)
    assert splits_of(division)[:3] == ["test", "train", None]
    assert sha256(3) not in division.decisions
    (line,) = division.warnings
    assert line.startswith("1 image (bridge.png), left out:")


def test_the_parts_of_the_source_win() -> None:
    images = [Image(number, number % 2, part="test" if number < 4 else None) for number in range(40)]
    division = divide(images, FIFTH, {sha256(0): "train"})
    assert splits_of(division)[:4] == ["test"] * 4
    assert Counter(splits_of(division)[4:]) == {"train": 32, "validation": 4}
    (line,) = division.warnings
    assert line.startswith("1 image (0.png), in the test set of the dataset, though earlier versions")


def test_images_beside_those_of_a_part_follow_them_unless_the_source_says_train() -> None:
    images = [
        Image(1, part="test", group="patient"),
        Image(2, group="patient"),
        Image(3, part="validation", component=1),
        Image(4, component=1),
        Image(5, part="train", component=9),
        Image(6, part="test", component=9),
        Image(6, part="train", name="copy.png"),
        *[Image(number) for number in range(10, 20)],
    ]
    division = divide(images)
    assert splits_of(division)[:4] == ["test", "test", "validation", "validation"]
    assert splits_of(division)[4:7] == ["train", "test", "train"]
    # A content that was trained on counts as a training image from now on.
    assert division.decisions[sha256(6)] == "train"
    assert set(splits_of(division)[7:]) == {"train"}


def test_validation_images_are_taken_from_the_training_part_of_a_source_without_them() -> None:
    images = [Image(number, part="test" if number < 10 else "train") for number in range(60)]
    earlier: dict[str, SplitName] = {sha256(20): "test", sha256(21): "validation"}
    division = divide(images, Fractions(None, 0.1), earlier)
    assert Counter(splits_of(division)) == {"test": 10, "train": 45, "validation": 5}
    assert splits_of(division)[20] != "test"
    assert splits_of(division)[21] == "validation"


def test_test_images_are_taken_from_the_training_part_of_a_source_without_them() -> None:
    images = [Image(number, part="validation" if number < 10 else "train") for number in range(60)]
    earlier: dict[str, SplitName] = {sha256(20): "test", sha256(21): "validation"}
    division = divide(images, FIFTH, earlier)
    assert Counter(splits_of(division)) == {"validation": 10, "train": 38, "test": 12}
    assert splits_of(division)[20] == "test"
    assert splits_of(division)[21] != "validation"


def test_a_source_without_test_images_needs_a_share() -> None:
    with pytest.raises(RequestError, match="dataset without test images"):
        divide([Image(1), Image(2)], Fractions(None, 0.1))


def test_a_class_without_held_out_images_gets_them_from_new_ones() -> None:
    decided: dict[str, SplitName] = {sha256(number): "train" for number in range(10)}
    images = [Image(number) for number in range(12)]
    division = divide(images, FIFTH, decided)
    assert splits_of(division)[:10] == ["train"] * 10
    assert Counter(splits_of(division)[10:]) == {"test": 1, "validation": 1}
    assert Counter(splits_of(divide([*images, Image(12)], FIFTH, decided))[10:]) == {
        "test": 2,
        "validation": 1,
    }
    assert splits_of(divide(images[:11], FIFTH, decided))[10] == "test"


@untimed
@given(st.lists(st.integers(1, 12), min_size=3, max_size=30), FRACTIONS)
def test_groups_bring_each_share_as_near_as_their_sizes_allow(sizes: list[int], fractions: Fractions) -> None:
    images = [
        Image(1000 * number + item, group=str(number))
        for number, size in enumerate(sizes)
        for item in range(size)
    ]
    counts = Counter(splits_of(divide(images, fractions)))
    assert set(counts) == set(SPLITS)
    assert counts["test"] <= max(1, round(len(images) * (fractions.test or 0))) + max(sizes)


def test_no_image_has_no_split() -> None:
    division = divide([])
    assert not len(division.sides)
    assert division.decisions == {}
