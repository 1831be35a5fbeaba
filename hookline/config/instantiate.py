"""Make the calls that a config records."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from hookline.config.arguments import SPECIAL_KEYS, argument_problems, find_target, name_of
from hookline.config.errors import ConfigError
from hookline.config.lazy import ARGS, PARTIAL, TARGET
from hookline.config.nodes import is_record, read
from hookline.config.origin import describe

logger = logging.getLogger(__name__)


def instantiate(cfg: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Build what a config node describes, innermost first.

    A recorded call is made; dictionaries and lists are built item by item and come out as plain ``dict`` and ``list``;
    everything else is given back as it is. Interpolations are resolved against the root of the config that the node
    is part of. Nothing that is not a recorded call is called, and the config is not changed.

    Args:
        cfg: The node.
        *args: Positional arguments for the outermost call, behind those it records.
        **kwargs: Run-time arguments for the outermost call; they replace recorded ones of the same name, which are then
            not built, and reach the callable as the very objects they are.

    Returns:
        What the outermost call returns (for a call with ``_partial_: true``, the callable with its arguments bound),
        or the built container.

    Raises:
        ConfigError: If a target does not import, a call's arguments do not bind, a value is missing, an interpolation
            leads nowhere, or run-time arguments are given to something that is no recorded call.
    """
    if is_record(cfg):
        return _call(cfg, args, kwargs)
    if args or kwargs:
        given = ", ".join([*("a positional argument" for _ in args), *map(repr, kwargs)])
        raise ConfigError(f"{describe(cfg)} is no recorded call (it has no {TARGET}), so it takes no {given}")
    return _build(cfg)


def _build(value: Any) -> Any:
    """Build any value of a config."""
    if is_record(value):
        return _call(value, (), {})
    if isinstance(value, DictConfig):
        if value._is_none():
            return None
        kind = value._metadata.object_type
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return OmegaConf.to_object(value)
    elif isinstance(value, ListConfig) and value._is_none():
        return None
    if isinstance(value, DictConfig) or type(value) is dict:
        return {key: _build(read(value, key)) for key in value}
    if isinstance(value, ListConfig) or type(value) in (list, tuple):
        items = [_build(read(value, index)) for index in range(len(value))]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def _call(node: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make one recorded call.

    Raises:
        ConfigError: If its arguments do not bind.
        TypeError: What the callable itself raises, with a note that names the node.
    """
    target = _build_target(node)
    partial = PARTIAL in node and bool(read(node, PARTIAL))
    names = [key for key in node if key not in SPECIAL_KEYS and key not in kwargs]
    odd = [key for key in names if not isinstance(key, str)]
    if odd:
        raise ConfigError(f"{describe(node)}: arguments have names, {odd[0]!r} is none")
    recorded = read(node, ARGS) if ARGS in node else None
    # The call is checked before its arguments are built: a wrong name is told before the work of minutes.
    places = len(recorded or ()) + len(args)
    doubtful = _check(node, target, places, [*names, *kwargs], partial)
    args = (*(_build(recorded) or ()), *args)
    kwargs = {**{name: _build(read(node, name)) for name in names}, **kwargs}
    if partial:
        return functools.partial(target, *args, **kwargs)
    try:
        return target(*args, **kwargs)
    except TypeError as error:
        if doubtful:
            raise ConfigError(doubtful) from error
        _note(error, node, target)
        raise
    except Exception as error:
        _note(error, node, target)
        raise


def _build_target(node: Mapping[str, Any]) -> Callable[..., Any]:
    """Give what a recorded call calls, which a recorded call may have to make first.

    Raises:
        ConfigError: If it cannot be called.
    """
    target = read(node, TARGET)
    if not is_record(target):
        return find_target(node)
    made = _build(target)
    if not callable(made):
        raise ConfigError(f"{describe(node)}: {TARGET} gives {made!r}, which cannot be called")
    return made


def _check(node: Any, target: Callable[..., Any], places: int, names: list[str], partial: bool) -> str:
    """Refuse a call that cannot bind.

    A decorator may take other arguments than what it wraps. If the call fits the decorator itself but not what is
    documented below it, it is made, and only blamed on the arguments if it fails.

    Returns:
        The problem, if it is such a doubtful one.

    Raises:
        ConfigError: If the call cannot bind.
    """
    problems = argument_problems(target, places, names, partial=partial)
    message = f"{describe(node)}: {name_of(target)} {' and '.join(problems)}" if problems else ""
    if problems and argument_problems(target, places, names, partial=partial, wrapped=False):
        raise ConfigError(message)
    return message


def _note(error: Exception, node: Any, target: Callable[..., Any]) -> None:
    """Say in an exception of a constructor which node was being built; only the innermost node speaks."""
    text = f"while building {describe(node)}: {name_of(target)} failed"
    notes = getattr(error, "__notes__", [])
    if any(note.startswith("while building ") for note in notes):
        return
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:  # Python 3.10 prints no notes
        logger.error("%s: %s", text, error)
        error.__notes__ = [*notes, text]  # type: ignore[attr-defined]
