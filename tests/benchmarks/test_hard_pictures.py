"""The hard pictures of the benchmarks: how many there are, and that the same seed gives the same."""

from pathlib import Path

from PIL import Image

from tests.benchmarks.hard_pictures import SHAPES, TEST_IMAGES, imbalanced_sizes, write_hard_pictures
from tests.benchmarks.test_benchmarks import CLASSES, write_pictures


def test_pictures_are_of_several_shapes_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cifar.tar.gz", TEST_IMAGES + 6)
    for name in ("one", "other"):
        write_hard_pictures(tmp_path / "cifar.tar.gz", tmp_path / name, {0: 6, 1: 3, 2: 1})
    one, other = (
        {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in (tmp_path / name).rglob("*.jpg")
        }
        for name in ("one", "other")
    )
    assert one == other
    for part, counts in {"train": (6, 3, 1), "test": (TEST_IMAGES,) * 3}.items():
        found = [len(list((tmp_path / "one" / part / name).iterdir())) for name in CLASSES]
        assert found == list(counts)
    sizes = set()
    for path in (tmp_path / "one").rglob("*.jpg"):
        with Image.open(path) as picture:
            sizes.add(picture.size)
    assert sizes == set(SHAPES)


def test_imbalanced_sizes_fall_to_a_tenth() -> None:
    sizes = list(imbalanced_sizes(240).values())
    assert (sizes[0], sizes[-1], len(sizes)) == (240, 24, 10)
    assert sizes == sorted(sizes, reverse=True)
