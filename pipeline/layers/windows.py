"""Sliding windows over a grid: their sizes, output sizes and receptive fields.

Output sizes: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning" (2016). Receptive
fields: A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill
(2019).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator

Padding = Literal["valid", "same", "full"]
Pair = tuple[int, int]
"""One value for the height and one for the width."""


def _check_size(value: object) -> object:
    sides = value if isinstance(value, list | tuple) and len(value) == 2 else (value,)
    if not all(type(side) is int and side > 0 for side in sides):
        raise ValueError("a whole number above 0, or two of them: [height, width]")
    return value


Size = Annotated[int | Pair, BeforeValidator(_check_size)]
"""The side of a square in pixels, or [height, width]."""


def pair(size: Size) -> Pair:
    """A size as [height, width]; a single number is the side of a square."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True)
class Window:
    """The input of one output position: `kernel` pixels, `dilation` apart, moved by `stride`."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: int = 1
    padding: Padding = "valid"

    @property
    def span(self) -> Pair:
        """The size of the dilated kernel, including gaps."""
        height, width = self.kernel
        return (height - 1) * self.dilation + 1, (width - 1) * self.dilation + 1

    def pad(self, grid: Pair) -> tuple[Pair, Pair]:
        """Rows and columns of padding before a grid, and in total.

        `same` is that of TensorFlow: just enough for ceil(side / stride) positions, an odd one at the end.
        """
        if self.padding == "valid":
            return (0, 0), (0, 0)
        if self.padding == "full":
            before = (self.span[0] - 1, self.span[1] - 1)
            return before, (2 * before[0], 2 * before[1])
        both = tuple(
            max((-(-side // stride) - 1) * stride + span - side, 0)
            for side, stride, span in zip(grid, self.stride, self.span, strict=True)
        )
        return (both[0] // 2, both[1] // 2), (both[0], both[1])

    def places(self, grid: Pair) -> Pair:
        """The number of positions in a padded grid: floor((side + padding - span) / stride) + 1.

        Dumoulin and Visin, relationship 6, with the span of relationship 15 for the kernel.
        """
        _, padding = self.pad(grid)
        height, width = (
            (side + both - span) // stride + 1
            for side, both, span, stride in zip(grid, padding, self.span, self.stride, strict=True)
        )
        return height, width


POINTWISE = Window()


@dataclass(frozen=True)
class ReceptiveField:
    """The input pixels that affect one position of a layer's output.

    For position (0, 0), they are a box of `size` pixels that begins at pixel `start`, which is negative if
    the box includes padding; the box of the next position is `stride` further.
    """

    size: Pair = (1, 1)
    stride: Pair = (1, 1)
    start: Pair = (0, 0)

    @property
    def end(self) -> Pair:
        """The pixel after the last one of the box for position (0, 0)."""
        return self.start[0] + self.size[0], self.start[1] + self.size[1]

    def through(self, window: Window, grid: Pair) -> "ReceptiveField":
        """The receptive field after a window over a grid whose positions have this one.

        size + (span - 1) * stride, stride * stride, start - padding * stride: the recurrences of Araujo
        et al. for a single path, applied from the input onwards.
        """
        before, _ = window.pad(grid)
        rows, columns = (
            (
                self.size[axis] + (window.span[axis] - 1) * self.stride[axis],
                self.stride[axis] * window.stride[axis],
                self.start[axis] - before[axis] * self.stride[axis],
            )
            for axis in (0, 1)
        )
        return ReceptiveField((rows[0], columns[0]), (rows[1], columns[1]), (rows[2], columns[2]))


def enclose(one: ReceptiveField, other: ReceptiveField) -> ReceptiveField:
    """The receptive field where two branches of equal stride merge: from the first start to the last end.

    Araujo et al., "Arbitrary computation graphs".
    """
    rows, columns = (
        (min(one.start[axis], other.start[axis]), max(one.end[axis], other.end[axis])) for axis in (0, 1)
    )
    return ReceptiveField((rows[1] - rows[0], columns[1] - columns[0]), one.stride, (rows[0], columns[0]))
