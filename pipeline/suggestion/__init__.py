"""A recipe for a folder of images: `survey` looks at the images, `recipe_text` chooses and explains.

Neither needs TensorFlow, and of a large folder only a sample is read.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FolderFacts:
    """What was found in a folder with one subfolder per class.

    Attributes:
        path: The folder, or its address.
        images: Number of images.
        classes: Number of classes.
        smallest: Number of images of the smallest class, of those to be divided or trained on.
        largest: The same of the largest class.
        sampled: Number of images that were read; all figures below are of these.
        width: Median width, in pixels, as displayed.
        height: Median height, in pixels, as displayed.
        shortest: The shorter side of the image at the tenth percentile.
        narrowest: The ratio of width to height at the tenth percentile.
        widest: The same at the ninetieth percentile.
        grey: The share of images without colour, 0 to 1.
        unreadable: Number of images in the sample that cannot be read.
    """

    path: str
    images: int
    classes: int
    smallest: int
    largest: int
    sampled: int
    width: int
    height: int
    shortest: int
    narrowest: float
    widest: float
    grey: float
    unreadable: int

    @property
    def longer_side(self) -> int:
        """The longer of the median sides, in pixels."""
        return max(self.width, self.height)

    @property
    def per_class(self) -> float:
        """The mean number of images of a class."""
        return self.images / self.classes
