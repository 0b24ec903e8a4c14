"""Windows that slide over a grid: how often they fit, and which input pixels stand behind each place.

V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning" (2016), for how often; A. Araujo,
W. Norris, J. Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill (2019), for which.
"""

from dataclasses import dataclass

from pixelmill.pipeline.config.layers import Padding

Pair = tuple[int, int]
"""A number for the height and one for the width."""


@dataclass(frozen=True)
class Window:
    """What a layer looks at for a place of its output: `kernel` pixels, `dilation` apart, every `stride`."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: int = 1
    padding: Padding = "valid"

    @property
    def span(self) -> Pair:
        """From the kernel's first pixel to its last, gaps included."""
        height, width = self.kernel
        return (height - 1) * self.dilation + 1, (width - 1) * self.dilation + 1

    def pad(self, grid: Pair) -> tuple[Pair, Pair]:
        """Rows and columns of padding before a grid, and before and after it together.

        `same` is what TensorFlow does: as little as gives ceil(side / stride) places, the odd one after.
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
        """How often the window fits in a padded grid: floor((side + padding - span) / stride) + 1.

        Dumoulin and Visin, relationship 6, with the span of relationship 15 for the kernel.
        """
        _, padding = self.pad(grid)
        height, width = (
            (side + both - span) // stride + 1
            for side, both, span, stride in zip(grid, padding, self.span, self.stride, strict=True)
        )
        return height, width


EACH_PLACE = Window()


@dataclass(frozen=True)
class ReceptiveField:
    """The input pixels that can change a place of a layer's output.

    For the place (0, 0) they lie in the box of `size` pixels that begins at the pixel `start`, which is
    negative where padding is seen; a place further, the box lies `stride` further.
    """

    size: Pair = (1, 1)
    stride: Pair = (1, 1)
    start: Pair = (0, 0)

    @property
    def end(self) -> Pair:
        """The pixel after the box's last, for the place (0, 0)."""
        return self.start[0] + self.size[0], self.start[1] + self.size[1]

    def through(self, window: Window, grid: Pair) -> "ReceptiveField":
        """The field behind a window over a grid whose places have this one.

        size + (span - 1) * stride, stride * stride, start - padding * stride: the recurrences of Araujo
        et al. for a single path, followed from the input on.
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
    """The field where two branches of one stride meet: from the first start to the last end.

    Araujo et al., "Arbitrary computation graphs".
    """
    rows, columns = (
        (min(one.start[axis], other.start[axis]), max(one.end[axis], other.end[axis])) for axis in (0, 1)
    )
    return ReceptiveField((rows[1] - rows[0], columns[1] - columns[0]), one.stride, (rows[0], columns[0]))
