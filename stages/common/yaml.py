"""Strict YAML: what a person sees is what is read.

YAML 1.2's numbers and booleans (``1e-3`` is a number, ``no``, ``12:30`` and ``007`` are strings); no aliases, no tags,
no duplicate keys; limits for size and depth.
"""

import math
import re
from typing import Any

import yaml

from stages.common.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
UNREADABLE = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # written by an escape; the rest PyYAML refuses itself


class _Loader(yaml.SafeLoader):
    """PyYAML's reader with YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way to be told

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refuse("anchors and aliases are not allowed", event)
        if getattr(event, "tag", None):
            raise _refuse(f"tags are not allowed ({event.tag})", event)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _refuse(f"nested deeper than {MAX_DEPTH}", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                found = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
                raise _refuse(f"a key must be a word, not {found}", key)
            if key.value in seen:
                raise _refuse(f"key {key.value!r} stands twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        if UNREADABLE.search(node.value):
            raise _refuse(f"{node.value!r} holds a character that is no text", node)
        return super().construct_scalar(node)

    def number(self, node: Any) -> int | float:
        text = self.construct_scalar(node)
        if math.isinf(float(text)):
            raise _refuse(f"{text[:20]} is larger than any number that a computer keeps", node)
        return int(text) if _INT.match(text) else float(text)


def _refuse(what: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=where.start_mark)


_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.number)


def shown(text: str, most: int = 200) -> str:
    """Give what somebody wrote as a message may hold it: in one line, not turned round, and not for ever."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:most])


def load(text: bytes | str, name: str) -> Any:
    """Read one document; ``name`` stands in front of messages.

    Raises:
        ConfigError: not YAML, not UTF-8, or something that this reader refuses.

    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{name}: more than {MAX_BYTES} bytes: this is no config file.")
    try:
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not UTF-8 (byte {error.start}). Save it as UTF-8.") from error
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "start"
        raise ConfigError(f"{name}: {place}: {shown(str(error.problem))}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: {str(error).splitlines()[0]}.") from error
