"""Strict parsing of YAML 1.2 (core schema).

PyYAML implements YAML 1.1, in which `010` is eight, `1:30` is ninety, `no` is false and `2026-11-25` is a
date, and it silently uses the last of duplicate keys. Here they are ten, text, and an error.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from pixelmill.pipeline.errors import RequestError

_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
_CORE_SCHEMA = (
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    ("int", _INTEGER, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", re.compile(r"<<\Z"), ["<"]),
)


def parse_yaml(text: str, origin: str) -> Any:
    """Read one YAML document.

    Args:
        text: The document.
        origin: Its name in error messages: `recipe mine.yaml`.

    Raises:
        RequestError: It is not valid YAML, has a duplicate key, or uses an unsupported tag.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except _RepeatedKeyError as error:
        raise RequestError(
            f"{origin} has the key {error.key!r} twice, on line {error.first} and on line {error.second}",
            "each key once",
            "Remove one of them.",
        ) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise RequestError(
            f"{origin} cannot be read ({_describe(error)})", "YAML 1.2", "Correct the syntax."
        ) from error


def dump_yaml(value: object, flow: bool = False) -> str:
    """Write a value as YAML that has the same meaning in YAML 1.1 and 1.2.

    Args:
        value: Dictionaries, lists, strings, numbers, booleans and None.
        flow: Write it on one line, `{a: 1, b: [2, 3]}`.
    """
    width = 10_000 if flow else 110
    return str(yaml.dump(value, Dumper=_Dumper, default_flow_style=flow, sort_keys=False, width=width))


class _RepeatedKeyError(Exception):
    def __init__(self, key: str, first: int, second: int) -> None:
        super().__init__(key, first, second)
        self.key, self.first, self.second = key, first, second


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if (key.tag, key.value) in lines:
                    raise _RepeatedKeyError(key.value, lines[key.tag, key.value], line)
                lines[key.tag, key.value] = line
        return node

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            self.flatten_mapping(node)
        return yaml.constructor.BaseConstructor.construct_mapping(self, node, deep)  # type: ignore[arg-type]


def _to_integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(node.value)
    if not _INTEGER.match(text):
        raise ValueError(f"{text!r} is not a whole number")
    bases = {"0o": 8, "0x": 16}
    return int(text[2:], bases[text[:2]]) if text[:2] in bases else int(text)


def _to_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(node.value)
    if not _FLOAT.match(text):
        raise ValueError(f"{text!r} is not a number")
    # Python writes infinity and NaN without the dot.
    return float(re.sub(r"\.(?=[a-zA-Z])", "", text))


# The rules of PyYAML are replaced because they implement YAML 1.1.
_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {
    None: yaml.SafeLoader.construct_undefined,
    _TAG + "null": yaml.SafeLoader.construct_yaml_null,
    _TAG + "bool": yaml.SafeLoader.construct_yaml_bool,
    _TAG + "int": _to_integer,
    _TAG + "float": _to_float,
    _TAG + "str": yaml.SafeLoader.construct_yaml_str,
    _TAG + "seq": yaml.SafeLoader.construct_yaml_seq,
    _TAG + "map": yaml.SafeLoader.construct_yaml_map,
}


class _Dumper(yaml.SafeDumper):
    """Quotes strings that YAML 1.1 or 1.2 would read as another type."""


for _name, _pattern, _first in _CORE_SCHEMA:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)
    _Dumper.add_implicit_resolver(_TAG + _name, _pattern, _first)


def _describe(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error)
