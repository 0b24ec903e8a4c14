"""The extras that retraining requires."""

from importlib.util import find_spec

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.extras import install_command

_NEEDED_TO_RETRAIN = (
    *("prefect", "tensorflow", "keras", "onnx", "onnxslim", "tf2onnx"),
    *("cleanlab", "cv2", "httpx", "imagehash", "jinja2", "matplotlib", "scipy", "sklearn"),
)


def require_extras() -> None:
    """Check that the packages for retraining are installed, before anything slow is imported.

    Raises:
        RequestError: A package is missing; the message names it.
    """
    missing = [name for name in _NEEDED_TO_RETRAIN if find_spec(name) is None]
    if missing:
        raise RequestError(
            f"an installation without {', '.join(missing)}",
            "pixelmill with its extras `flows` and `train`",
            f"Install them: {install_command('flows', 'train')}",
        )


def require_prefect() -> None:
    """Check that Prefect is installed.

    Raises:
        RequestError: It is not.
    """
    if find_spec("prefect") is None:
        raise RequestError(
            "an installation without Prefect",
            "pixelmill with its extra `flows`",
            f"Install it: {install_command('flows')}",
        )
