"""The parameters of the scoring command and of the scoring flow, made from the fields of `ScoringOptions`."""

import inspect
import re
from collections.abc import Callable, Collection, Sequence
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from pixelmill.flows.commands.options import format_size, parse_size
from pixelmill.pipeline.scoring.options import BYTES, Option, scoring_options

P = ParamSpec("P")
R = TypeVar("R")


def as_command(function: Callable[..., None]) -> Callable[..., None]:
    """Replace the `**options` of a command by one option per field.

    The field `top_k` becomes `--top-k`; the option of a list is named in the singular and may be repeated;
    a size is written as `512MB`.
    """

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        for option in scoring_options():
            value = kwargs[option.name]
            if option.type == tuple[str, ...]:
                kwargs[option.name] = tuple(value or ())
            elif option.unit == BYTES:
                kwargs[option.name] = parse_size(_name(option), value)
        function(*args, **kwargs)

    return _with_parameters(run, function, [_command_parameter(option) for option in scoring_options()])


def as_flow(function: Callable[P, R], leave_out: Collection[str] = ()) -> Callable[P, R]:
    """Replace the `**options` of a flow by one parameter per field, for Prefect's form.

    Args:
        function: The body of the flow.
        leave_out: The fields that the flow decides itself, besides those that are among its own parameters.
    """
    own = inspect.signature(function).parameters
    options = [
        option for option in scoring_options() if option.name not in own and option.name not in leave_out
    ]

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    # Prefect reads the help of a parameter from the docstring, whose last line stands for all options.
    own_lines = (inspect.getdoc(function) or "").splitlines()[:-1]
    more_lines = [f"    {option.name}: {option.description}" for option in options]
    run.__doc__ = "\n".join([*own_lines, *more_lines])
    return _with_parameters(run, function, [_flow_parameter(option) for option in options])


def _with_parameters(
    run: Callable[P, R], function: Callable[..., Any], more: Sequence[inspect.Parameter]
) -> Callable[P, R]:
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    first = [each for each in own if each.kind is not each.KEYWORD_ONLY]
    last = [each for each in own if each.kind is each.KEYWORD_ONLY]
    vars(run)["__signature__"] = signature.replace(parameters=[*first, *more, *last])
    annotations = {name: hint for name, hint in function.__annotations__.items() if name != "options"}
    run.__annotations__ = {**annotations, **{each.name: each.annotation for each in more}}
    return run


def _command_parameter(option: Option) -> inspect.Parameter:
    kind, default, metavar = option.type, option.default, None
    if kind == tuple[str, ...]:
        kind, default, metavar = list[str] | None, None, "PATTERN"
    elif option.is_location:
        kind = str | None
    elif option.unit == BYTES:
        kind, default, metavar = str, format_size(default), "SIZE"
    description = re.sub(r"`(\w+)`", lambda found: f"--{found[1].replace('_', '-')}", option.description)
    typed: Any = Annotated[kind, typer.Option(_name(option), metavar=metavar, help=description)]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=typed)


def _flow_parameter(option: Option) -> inspect.Parameter:
    kind = str | None if option.is_location else option.annotation
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=kind
    )


def _name(option: Option) -> str:
    name = option.name.removesuffix("s") if option.type == tuple[str, ...] else option.name
    return f"--{name.replace('_', '-')}"
