"""The content of `metrics.json`, as types: its JSON schema is `metrics.schema.json`.

Every interval is a 95% confidence interval, as [low, high].
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pixelmill.pipeline.evaluation.intervals import Interval

SCHEMA_FILE = "metrics.schema.json"
"""The JSON schema, in this folder."""


class Row(BaseModel):
    """A part of `metrics.json`; the docstrings of its fields are the descriptions in the schema."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ClassShare(Row):
    """A class and its share of the test images."""

    name: str
    share: float
    """0 to 1."""


class TestMetrics(Row):
    """Metrics over all test images."""

    __test__ = False  # Not a test, whatever pytest takes its name for.

    loss: float
    """Cross-entropy, in nats."""
    loss_interval: Interval
    accuracy: float
    """Top-1 accuracy, 0 to 1."""
    accuracy_interval: Interval
    balanced_accuracy: float
    """The mean recall of the classes that have test images, 0 to 1."""
    balanced_accuracy_interval: Interval
    calibration_error: float
    """Expected calibration error over 15 bins, 0 to 1."""
    calibration_error_interval: Interval
    images: int
    largest_class: ClassShare
    never_predicted: list[str]
    """The classes with test images that are not predicted for any of them."""


class SplitMetrics(Row):
    """Metrics of the saved model on the validation images."""

    loss: float
    accuracy: float


class TrainingFacts(Row):
    """How the model was trained."""

    epochs: int
    chosen_epoch: int
    """The epoch whose weights were saved, counted from 1."""
    seconds: float
    device: str
    images: int
    normalization: dict[str, Any] | None
    """The effect of batch normalization at inference; null without trainable batch normalization."""
    starting_weights: dict[str, Any] | None = None
    """What was taken from an earlier model; null if the training began with random weights."""
    found_learning_rate: float | None = None
    """The peak that `training.learning_rate.find` found; null if the recipe gives it."""
    time_budget: dict[str, Any] | None = None
    """The use of `training.max_minutes`; null without it."""


class ClassMetrics(Row):
    """Metrics of one class."""

    name: str
    precision: float
    """The share of its predictions that are right, 0 to 1; 0 without predictions."""
    precision_interval: Interval
    recall: float
    """The share of its images that are predicted as it, 0 to 1; 0 without images."""
    recall_interval: Interval
    f1: float
    """The harmonic mean of precision and recall, 0 to 1."""
    f1_interval: Interval
    images: int
    predictions: int


class ConfusedPair(Row):
    """The images of one class that are predicted as another."""

    true: str
    predicted: str
    images: int


class ConfusedClasses(Row):
    """The part of the confusion matrix with the most frequent mistakes."""

    classes: list[str]
    confusion_matrix: list[list[int]]
    """[i, j] counts the images of class i that are predicted as class j."""
    other: list[int]
    """The images of class i that are predicted as a class that is not listed."""


class ReliabilityBin(Row):
    """The test images whose top-1 probability lies in a range."""

    low: float
    """The lower end, inclusive."""
    high: float
    """The upper end, exclusive except for 1."""
    images: int
    confidence: float | None
    """The mean top-1 probability; null without images."""
    accuracy: float | None
    accuracy_interval: Interval | None


class CoveragePoint(Row):
    """The test images that remain if those with a lower top-1 probability are left to a person."""

    coverage: float
    """Their share of all test images, 0 to 1."""
    images: int
    threshold: float
    """The lowest top-1 probability among them."""
    precision: float
    """The share of them that is predicted correctly, 0 to 1."""
    precision_interval: Interval


class ClassThreshold(Row):
    """The probability from which predictions of a class have the wanted precision."""

    model_config = ConfigDict(populate_by_name=True)

    class_name: str = Field(alias="class")
    threshold: float | None
    """Null if no threshold reaches the wanted precision."""
    precision: float | None
    precision_interval: Interval | None
    coverage: float
    """The share of the predictions of the class that reach the threshold, 0 to 1."""


class Slice(Row):
    """The test images with one value, or one range of values, of a property."""

    value: str
    """The value, or the ends of the range."""
    images: int
    accuracy: float
    accuracy_interval: Interval
    p_value: float
    """One-sided exact test of Fisher against all other test images, adjusted by Holm over all slices."""
    is_below: bool
    """Whether it is less accurate than the other test images at a level of 5%."""


class SliceGroup(Row):
    """The slices by one property of the images."""

    property: str
    """`class`, `size`, `brightness`, `contrast`, `sharpness`, or `column NAME` of the dataset's table."""
    slices: list[Slice]


class RobustnessLevel(Row):
    """The predictions for images that were changed to one degree."""

    level: float | None
    """The degree, in the unit of the series; null if there are no degrees."""
    images: int
    accuracy: float
    accuracy_interval: Interval
    unchanged: float
    """The share of the images with the same top-1 class as before the change, 0 to 1."""
    unchanged_interval: Interval


class RobustnessSeries(Row):
    """The predictions for images that were changed in one way."""

    change: str
    unit: str
    levels: list[RobustnessLevel]


class Robustness(Row):
    """The predictions for a sample of the test images, before and after changes of the pixels."""

    images: int
    accuracy: float
    accuracy_interval: Interval
    series: list[RobustnessSeries]


class CalibrationFacts(Row):
    """The temperature of the probabilities."""

    temperature: float
    """What the logits are divided by."""
    is_used: bool
    """Whether it is: not if the calibration error becomes larger, or if no temperature fits."""
    error: float
    """Expected calibration error on the test images without it, 0 to 1."""
    error_interval: Interval
    scaled_error: float
    """The error with it."""
    scaled_error_interval: Interval
    validation_images: int
    images: int


class DecisionFacts(Row):
    """What the thresholds do on the test images, which they were not fitted on."""

    wanted_precision: float
    images: int
    accepted: int
    """The test images whose prediction reaches the threshold of its class."""
    precision: float | None
    """The share of correct predictions among these; null if there are none."""
    precision_interval: Interval
    coverage: float
    """The share of the test images that is accepted."""


class GateVerdict(Row):
    """How one bar of the promotion was judged."""

    bar: str
    scope: str
    """`all`, `class NAME`, or a slice such as `camera=north`."""
    images: int
    value: float | None
    interval: Interval | None
    champion: float | None
    """The metric of the version that the alias points to, on the same images; null without a comparison."""
    limit: str
    verdict: Literal["passed", "refused", "not judged"]
    p_value: float | None
    """For a drop: of the hypothesis that it is within the limit, adjusted for all drops together."""
    max_drop: float | None
    detectable: float | None
    """For a drop: the smallest one that these images could have shown."""
    note: str


class ComparedOn(Row):
    """The test images of the gate."""

    images: int
    left_out_as_trained_on: int
    """Test images that the champion was trained on."""
    fingerprint: str
    """SHA-256 of the contents of the test images, in any order."""
    earlier_decisions: int
    """How often these test images have decided before."""


class MetricsFile(Row):
    """The results of the evaluation of a model on test images. Intervals are 95% confidence intervals."""

    model_config = ConfigDict(title="metrics.json of a pixelmill bundle")

    test: TestMetrics
    validation: SplitMetrics
    parameters: int
    """Number of parameters, trainable and non-trainable."""
    training: TrainingFacts
    classes: list[ClassMetrics]
    """In the order of the labels."""
    confusion_matrix: list[list[int]] | None
    """[i, j] counts the images of class i that are predicted as class j; null for more than 50 classes."""
    most_confused: ConfusedClasses | None
    """The most confused classes; null for at most 30 classes."""
    confused_pairs: list[ConfusedPair]
    """The most frequent mistakes first, at most 1,000."""
    reliability: list[ReliabilityBin]
    coverage: list[CoveragePoint]
    """By ascending coverage."""
    slices: list[SliceGroup]
    robustness: Robustness | None
    """Null if it was not measured."""
    thresholds: list[ClassThreshold] | None = None
    """Null if the recipe names no wanted precision."""
    decisions: DecisionFacts | None = None
    calibration: CalibrationFacts | None = None
    """Null if the recipe asks for no calibration."""
    champion: str | None = None
    """The version that the gate compared with, `name@version`; null if there was none."""
    gate: list[GateVerdict] | None = None
    """Null before the gate has judged."""
    compared_on: ComparedOn | None = None
    permanent_checks: dict[str, Any] | None = None
    """The corrected images that the version must predict right; null if there are none."""
    preview: dict[str, Any] | None = None
    """What would change in a sample of the last production batch; null without one."""


def metrics_schema() -> dict[str, Any]:
    """The JSON schema of `metrics.json`, draft 2020-12."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **MetricsFile.model_json_schema(mode="validation")}
