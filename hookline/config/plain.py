"""Turn a config into plain data: calls and objects by dotted name, nothing that needs pickling."""

import functools
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, SCMode

from hookline.config.errors import ConfigError
from hookline.config.lazy import ARGS, PARTIAL, TARGET, record_value
from hookline.config.names import dotted_name
from hookline.config.origin import get_origin

_REFERENCE_TARGET = "hookline.config.locate"
_PRIMITIVES: Any = (bool, int, float, str, bytes)


def to_plain(cfg: DictConfig) -> dict[Any, Any]:
    """Turn a config into dictionaries, lists, texts and numbers.

    Interpolations stay as they are written. Targets become dotted names; other classes, functions and enum members
    become recorded calls that import them, ``functools.partial`` objects recorded calls with ``_partial_``, paths and
    dataclass instances recorded calls of their class.

    Args:
        cfg: The config.

    Returns:
        The plain content.

    Raises:
        ConfigError: If there are values that cannot be written so; the message names the key of each.
    """
    content = OmegaConf.to_container(cfg, resolve=False, structured_config_mode=SCMode.DICT_CONFIG)
    problems: list[str] = []
    plain = _plain(content, "", problems)
    if problems:
        listing = "\n".join(f"  {problem}{_made_at(cfg, problem)}" for problem in problems)
        raise ConfigError(f"the config cannot be saved, because of\n{listing}")
    assert isinstance(plain, dict)
    return plain


def _plain(value: Any, key: str, problems: list[str]) -> Any:
    """Turn one value into plain data; add what cannot be to the problems."""
    if isinstance(value, DictConfig):  # a dataclass instance that OmegaConf keeps as a schema
        kind = value._metadata.object_type
        fields = {name: _raw(value._get_node(name)) for name in value.keys()}  # noqa: SIM118 (a missing value counts)
        value = {TARGET: kind, **fields} if isinstance(kind, type) and kind is not dict else fields
    if isinstance(value, ListConfig):
        value = _raw(value)
    if isinstance(value, Mapping):
        return _plain_mapping(value, key, problems)
    if isinstance(value, list):
        return [_plain(item, f"{key}[{index}]", problems) for index, item in enumerate(value)]
    if value is None or type(value) in _PRIMITIVES:
        return value
    if isinstance(value, _PRIMITIVES) and not isinstance(value, Enum):
        # A subclass, such as numpy's float64, becomes what it is at heart.
        kind = next(kind for kind in _PRIMITIVES if isinstance(value, kind))
        return kind(value)
    return _plain_object(value, key, problems)


def _raw(node: Any) -> Any:
    """Take a node out of its container, unresolved."""
    if (
        not isinstance(node, DictConfig | ListConfig)
        or node._is_none()
        or node._is_missing()
        or node._is_interpolation()
    ):
        return node._value()
    return OmegaConf.to_container(node, resolve=False, structured_config_mode=SCMode.DICT_CONFIG)


def _plain_mapping(value: Mapping[Any, Any], key: str, problems: list[str]) -> dict[Any, Any]:
    """Turn a dictionary into plain data; a target is written by name."""
    plain = {}
    for name, item in value.items():
        below = f"{key}.{name}" if key else str(name)
        if name == TARGET and not isinstance(item, str | Mapping):
            plain[name] = _name(item, below, problems)
        elif isinstance(name, Enum):
            problems.append(f"{below}: a key that is an enum member")
        else:
            plain[name] = _plain(item, below, problems)
    return plain


def _plain_object(value: Any, key: str, problems: list[str]) -> Any:
    """Turn an object into a recorded call that makes or imports it."""
    if type(value) is functools.partial:
        args = {ARGS: list(value.args)} if value.args else {}
        record = {TARGET: value.func, PARTIAL: True, **args, **value.keywords}
        return _plain(record, key, problems)
    if type(value) in (tuple, set, frozenset):  # inside a live object, for a config itself holds them as lists
        items = list(value) if isinstance(value, tuple) else sorted(value, key=repr)
        return {TARGET: f"builtins.{type(value).__name__}", ARGS: [_plain(items, key, problems)]}
    if isinstance(value, PurePath):
        return {TARGET: "pathlib.Path", ARGS: [str(value)]}
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return _plain(value.item(), key, problems)
    recorded = record_value(value)
    if isinstance(recorded, DictConfig):  # a dataclass instance or named tuple that was put into an opaque place
        return _plain(OmegaConf.to_container(recorded, structured_config_mode=SCMode.DICT_CONFIG), key, problems)
    return {TARGET: _REFERENCE_TARGET, "name": _name(value, key, problems)}


def _name(value: Any, key: str, problems: list[str]) -> str | None:
    """Write an object by name."""
    if isinstance(value, DictConfig):  # a dataclass type that OmegaConf took for a schema
        value = value._metadata.object_type
    try:
        return dotted_name(value)
    except ConfigError as error:
        problems.append(f"{key}: {error}")
        return None


def _made_at(cfg: DictConfig, problem: str) -> str:
    """Say where the node that holds a problem was made."""
    key = problem.partition(":")[0]
    node: Any = cfg
    for part in key.replace("]", "").replace("[", ".").split("."):
        child = node._get_node(int(part) if isinstance(node, ListConfig) else part)
        if not isinstance(child, DictConfig | ListConfig):
            break
        node = child
    origin = get_origin(node)
    return f" (made at {origin})" if origin else ""
