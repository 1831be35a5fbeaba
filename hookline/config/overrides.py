"""Change a config from the command line, in Hydra's grammar."""

import functools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from hookline.config.arguments import accepted_names, find_target
from hookline.config.errors import ConfigError, did_you_mean
from hookline.config.lazy import TARGET
from hookline.config.nodes import children, is_record
from hookline.config.origin import OVERRIDE, describe, full_key, set_origin

if TYPE_CHECKING:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override

_INDEX = re.compile(r"\[(\d+)\]")


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Apply ``key=value`` texts to a config, in their order.

    ``key=value`` changes what is there, or sets an argument that the recorded call takes; a dictionary changes key by
    key unless it is a recorded call itself. ``+key=value`` adds what is not there, ``++key=value`` does either,
    ``~key`` removes. A list's items are ``key.0`` or ``key[0]``.

    Args:
        cfg: The config, which is changed.
        overrides: The texts.

    Returns:
        The same config.

    Raises:
        ConfigError: If a text does not parse or its key does not exist; the message holds the nearest key.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"overrides are a list of texts, not one text: {overrides!r}")
    for text in overrides:
        override = _parse(text)
        try:
            _apply(cfg, override, text)
        except OmegaConfBaseException as error:
            raise ConfigError(f"override {text!r}: {str(error).splitlines()[0]}") from error
    return cfg


def _parse(text: str) -> "Override":
    """Parse one override.

    Raises:
        ConfigError: If it is not in the grammar, or gives several values.
    """
    from hydra.errors import HydraException

    key, equals, value = text.partition("=")
    if not equals and not text.startswith("~"):
        raise ConfigError(f"override {text!r} has no '='; write key=value, +new.key=value or ~key")
    try:
        override = _parser().parse_override(_INDEX.sub(r".\1", key) + equals + value)
    except HydraException as error:
        reason = str(error).splitlines()[0].partition(" expecting ")[0]
        raise ConfigError(
            f"override {text!r} is not understood: {reason}; write key=value, +key=value or ~key, lists as [1,2], "
            "dictionaries as {a: 1}, and quote a text that holds special characters: key='\"a, b\"'"
        ) from error
    if override.is_sweep_override():
        raise ConfigError(f"override {text!r} gives several values; a list is written [1,2], a text in quotes")
    if not override.key_or_group or override.package is not None:
        raise ConfigError(f"override {text!r} has no plain key such as train.max_iter before the '='")
    return override


@functools.cache
def _parser() -> "OverridesParser":
    # Hydra's parser takes as long to import as everything else in this package, and only the command line needs it.
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def _apply(cfg: DictConfig, override: "Override", text: str) -> None:
    """Apply one parsed override.

    Raises:
        ConfigError: If its key does not exist, or exists where it must not.
    """
    *way, last = override.key_or_group.split(".")
    adding = override.is_add() or override.is_force_add()
    node: Any = cfg
    for part in way:
        node = _step(node, part, text, make=adding)
    key = _key_in(node, last)
    if override.is_delete():
        _delete(node, key, override, text)
    elif override.is_add() and _has(node, key) and node._get_node(key)._value() is not None:
        raise ConfigError(f"override {text!r}: {describe(node, key)} is there already; change it without the '+'")
    elif adding:
        _set(node, key, override.value(), text)
    else:
        raw = (override.input_line or "").partition("=")[2]
        _change(node, key, override.value(), text, raw)


def _step(node: Any, part: str, text: str, *, make: bool) -> Any:
    """Go from a node to the container below one of its keys.

    Raises:
        ConfigError: If there is no container.
    """
    key = _key_in(node, part)
    if not _has(node, key):
        if not (make and isinstance(node, DictConfig)):
            raise ConfigError(_unknown(node, part, text))
        _set(node, key, {}, text)
    child = node._get_node(key)
    if child._is_interpolation():
        raise ConfigError(
            f"override {text!r}: {describe(node, key)} stands for {child._value()}; change that, or replace it whole"
        )
    if child._is_none() and make:
        _set(node, key, {}, text)
        child = node._get_node(key)
    if not isinstance(child, DictConfig | ListConfig) or child._is_none() or child._is_missing():
        raise ConfigError(f"override {text!r}: {describe(node, key)} is {child._value()!r} and has no keys")
    return child


def _key_in(node: Any, part: str) -> Any:
    """Turn a part of a dotted key into a key of a node: an index for lists, a number where the keys are numbers."""
    if isinstance(node, ListConfig) and re.fullmatch(r"-?\d+", part):
        return int(part)
    if isinstance(node, DictConfig) and part not in node and part.isdigit() and int(part) in node:
        return int(part)
    return part


def _has(node: Any, key: Any) -> bool:
    """Tell whether a node has a key, whatever its value is."""
    if isinstance(node, ListConfig):
        return isinstance(key, int) and -len(node) <= key < len(node)
    return key in node.keys()  # noqa: SIM118 (``in node`` is false for missing values)


def _delete(node: Any, key: Any, override: "Override", text: str) -> None:
    """Remove a key; with a value given, only if it has that.

    Raises:
        ConfigError: If the key does not exist or has another value.
    """
    if not _has(node, key):
        raise ConfigError(_unknown(node, str(key), text))
    value = override.value()
    if value is not None and node._get_node(key)._value() != value:
        raise ConfigError(
            f"override {text!r}: {describe(node, key)} is {node._get_node(key)._value()!r}, not {value!r}"
        )
    del node[key]


def _change(node: Any, key: Any, value: Any, text: str, raw: str) -> None:
    """Change what is there; a plain dictionary key by key.

    Raises:
        ConfigError: If nothing is there, or the value is of a kind that cannot stand there.
    """
    if not _has(node, key):
        if not (isinstance(node, DictConfig) and is_record(node) and key in _accepted(node)):
            raise ConfigError(_unknown(node, str(key), text))
        _set(node, key, value, text)
        return
    old = node._get_node(key)
    filled = isinstance(old, DictConfig) and not (old._is_none() or old._is_missing() or old._is_interpolation())
    if filled and isinstance(value, dict) and TARGET not in value:
        for name, item in value.items():
            _change(old, name, item, text, str(item))
        return
    is_reference = isinstance(value, str) and "${" in value
    if filled and not (isinstance(value, dict) or value is None or is_reference):
        keys = ", ".join(map(str, list(old)[:8]))
        raise ConfigError(f"override {text!r}: {describe(node, key)} holds the keys {keys}; give one of those a value")
    if not is_record(node) and not isinstance(node, ListConfig):
        value = _keep_kind(node, key, old._value(), value, text, raw)
    _set(node, key, value, text)


def _keep_kind(node: Any, key: Any, old: Any, value: Any, text: str, raw: str) -> Any:
    """Keep a text a text (``output_dir=2024``), and refuse a text where a number stood.

    Raises:
        ConfigError: If it is refused.
    """
    if isinstance(value, str) and isinstance(old, bool | int | float) and "${" not in value:
        kind = "true or false" if isinstance(old, bool) else "a number"
        raise ConfigError(f"override {text!r}: {describe(node, key)} is {old!r} and wants {kind}, not {value!r}")
    if isinstance(old, str) and "${" not in old and old != "???" and isinstance(value, bool | int | float):
        return raw
    return value


def _set(node: Any, key: Any, value: Any, text: str) -> None:
    """Put a value under a key, or behind the last item of a list; remember which override it came from.

    Raises:
        ConfigError: If a list would get a gap.
    """
    if isinstance(node, ListConfig) and not _has(node, key):
        if key != len(node):
            raise ConfigError(_unknown(node, str(key), text))
        node.append(value)
    else:
        node[key] = value
    made = node._get_node(key)
    if isinstance(made, DictConfig | ListConfig):
        set_origin(made, f"{OVERRIDE}{text!r}")


def _accepted(node: DictConfig) -> list[str]:
    """List the arguments that a recorded call's target takes by name; empty if it does not import."""
    try:
        return accepted_names(find_target(node))
    except ConfigError:
        return []


def _unknown(node: Any, part: str, text: str) -> str:
    """Say that a key does not exist, and which near one does, here or elsewhere in the config."""
    if isinstance(node, ListConfig):
        return f"override {text!r}: {describe(node)} has {len(node)} items, so there is no {part!r}"
    options = [*map(str, node.keys()), *(_accepted(node) if is_record(node) else [])]
    near = did_you_mean(part, options)
    elsewhere = [key for key in _all_keys(node._get_root()) if key.rpartition(".")[2] == part]
    if elsewhere and "did you mean" not in near:
        near = f"; did you mean {' or '.join(map(repr, elsewhere[:3]))}?"
    hint = f" (+{full_key(node, part)}=... would add it)" if not text.startswith("~") else ""
    return f"override {text!r}: there is no {part!r} in {describe(node)}{near}{hint}"


def _all_keys(node: Any) -> Iterator[str]:
    """List the full keys of a tree."""
    for key, child, own in children(node):
        yield full_key(node, key)
        if child is not None and own:
            yield from _all_keys(child)
