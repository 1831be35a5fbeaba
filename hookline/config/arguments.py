"""Check the arguments of recorded calls against the signatures of what they call, without calling anything."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from inspect import Parameter
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from hookline.config.errors import ConfigError, did_you_mean
from hookline.config.lazy import ARGS, PARTIAL, TARGET
from hookline.config.names import locate
from hookline.config.nodes import children, is_record, read
from hookline.config.origin import describe, full_key

_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
# What a recorded call may hold beside arguments.
SPECIAL_KEYS = (TARGET, ARGS, PARTIAL)


def find_target(node: Mapping[str, Any]) -> Callable[..., Any]:
    """Give what a recorded call calls.

    Args:
        node: The recorded call; its target is a callable or a dotted name.

    Returns:
        The callable.

    Raises:
        ConfigError: If a dotted name leads nowhere, or to something that cannot be called.
    """
    target = read(node, TARGET)
    if isinstance(target, str):
        try:
            target = locate(target)
        except ConfigError as error:
            raise ConfigError(f"{describe(node)}: {TARGET}: {error}") from error
    if isinstance(target, DictConfig) and isinstance(target._metadata.object_type, type):
        target = target._metadata.object_type  # a dataclass that OmegaConf took for a schema
    if not callable(target):
        raise ConfigError(f"{describe(node)}: {TARGET} is {target!r}, which cannot be called")
    return target


def accepted_names(target: Callable[..., Any]) -> list[str]:
    """List the arguments that a callable takes by name.

    Args:
        target: The callable.

    Returns:
        Their names; empty where the signature cannot be known.
    """
    signature = _signature(target)
    return [] if signature is None else [p.name for p in signature.parameters.values() if p.kind in _BY_NAME]


def argument_problems(
    target: Callable[..., Any], places: int, names: Collection[str], *, partial: bool = False, wrapped: bool = True
) -> list[str]:
    """Tell why a call would not bind.

    Args:
        target: What would be called.
        places: Number of positional arguments.
        names: Names of the keyword arguments.
        partial: Required arguments may come later.
        wrapped: Look through decorators that name what they wrap, at the signature that is documented.

    Returns:
        One phrase per problem, without subject; empty if the call binds or the signature cannot be known.
    """
    signature = _signature(target, wrapped)
    if signature is None:
        return []
    parameters = list(signature.parameters.values())
    kinds = {p.kind for p in parameters}
    by_place = [p for p in parameters if p.kind in _BY_PLACE]
    by_name = [p.name for p in parameters if p.kind in _BY_NAME]
    filled = {p.name for p in by_place[:places]}
    problems = []
    if places > len(by_place) and Parameter.VAR_POSITIONAL not in kinds:
        problems.append(f"takes at most {len(by_place)} positional arguments, not {places}")
    for name in names:
        if name in filled and name in by_name:
            problems.append(f"gets the argument {name!r} twice, by position and by name")
        elif name not in by_name and Parameter.VAR_KEYWORD not in kinds:
            problems.append(f"has no argument {name!r}{did_you_mean(name, by_name, kind='it takes')}")
    filled |= {name for name in names if name in by_name}
    required = [p.name for p in parameters if p.default is Parameter.empty and p.kind in (*_BY_NAME, *_BY_PLACE)]
    missing = [name for name in required if name not in filled]
    if missing and not partial:
        problems.append(f"lacks the required argument{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}")
    return problems


def check_call_arguments(
    cfg: Any, key: str | None = None, runtime: Mapping[str, Collection[str]] | None = None
) -> None:
    """Check every recorded call of a config without building anything.

    Each target must import, each call must bind to its target's signature, each interpolation must resolve, and no
    value may still be missing (``???``).

    Args:
        cfg: A config, or any node of one.
        key: Check only what is below this key of it, such as ``model``.
        runtime: Which arguments will be given at run time: names by the full key of the call, which may hold ``*``,
            such as ``{"optimizer": ["params"], "dataloader.test*": ["dataset"]}``.

    Raises:
        ConfigError: If anything is wrong; the message lists all of it, one line each.
    """
    node = cfg if key is None else OmegaConf.select(cfg, key)
    problems = list(dict.fromkeys(_problems_below(node, runtime or {})))
    if problems:
        raise ConfigError("\n".join(problems))


def _problems_below(node: Any, runtime: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Walk a tree; nodes reached through an interpolation are walked only where they stand."""
    key = full_key(node) if isinstance(node, DictConfig | ListConfig) else ""
    given = [name for pattern, names in runtime.items() if fnmatchcase(key, pattern) for name in names]
    if is_record(node):
        yield from _problems_of_call(node, given)
    for name, child, own in children(node):
        try:
            value = read(node, name)
        except ConfigError as error:
            if name not in given:
                yield str(error)
            continue
        if own:
            yield from _problems_below(value if child is None else child, runtime)


def _problems_of_call(node: Mapping[str, Any], given: Collection[str]) -> Iterator[str]:
    """Check one recorded call."""
    try:
        if is_record(read(node, TARGET)):
            return  # what it calls is known only when that is built
        target = find_target(node)
    except ConfigError as error:
        yield str(error)
        return
    names = [str(name) for name in node if name not in SPECIAL_KEYS]
    places = len(node.get(ARGS) or ())
    names += [name for name in given if name not in names]
    for problem in argument_problems(target, places, names, partial=bool(node.get(PARTIAL))):
        yield f"{describe(node)}: {name_of(target)} {problem}"


def name_of(target: Any) -> str:
    """Name a callable for a message.

    Args:
        target: The callable.

    Returns:
        Its qualified name.
    """
    return str(getattr(target, "__qualname__", None) or repr(target))


def _signature(target: Callable[..., Any], wrapped: bool = True) -> inspect.Signature | None:
    """Give a callable's signature; None for builtins that do not tell theirs."""
    try:
        return inspect.signature(target, follow_wrapped=wrapped)
    except (TypeError, ValueError):
        return None
