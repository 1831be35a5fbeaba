"""Record a call instead of making it."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import AnyNode, DictConfig, ListConfig

from hookline.config.origin import set_origin

TARGET = "_target_"
ARGS = "_args_"
PARTIAL = "_partial_"
FLAGS = {"allow_objects": True}


class LazyCall:
    """Wrap a callable so that calling it records the call, to be made by ``instantiate`` later.

    ``L(nn.Linear)(in_features=4, out_features=2)`` gives a node that holds the callable under ``_target_`` and the
    arguments under their names, where a recipe or an override may still change them. The node knows the file and line
    where it was recorded, which later errors show. Positional arguments are recorded by name where the signature
    names them, else under ``_args_``. Arguments may be recorded calls in turn, also inside lists and dicts.

    Args:
        target: What to call: a callable, its dotted name, or a recorded call that gives a callable.

    Raises:
        TypeError: If the target is nothing that can be called.
    """

    def __init__(self, target: Callable[..., Any] | str | Mapping[str, Any]) -> None:
        if not (callable(target) or isinstance(target, str | Mapping)):
            raise TypeError(f"LazyCall needs a callable, its dotted name or a recorded call; got {target!r}")
        self._target = target

    def __call__(self, /, *args: Any, **kwargs: Any) -> DictConfig:
        """Record one call.

        Args:
            *args: Positional arguments.
            **kwargs: Keyword arguments.

        Returns:
            The node.
        """
        caller = sys._getframe(1)
        content = {TARGET: record_value(self._target)}
        content.update(_bind_positional(self._target, args, kwargs))
        content.update((key, record_value(value)) for key, value in kwargs.items() if key != TARGET)
        node = DictConfig(content, flags=FLAGS)
        set_origin(node, f"{caller.f_code.co_filename}:{caller.f_lineno}")
        return node


def _bind_positional(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Give positional arguments the names that the target has for them."""
    if not args:
        return {}
    try:
        bound = inspect.signature(target).bind_partial(*args).arguments
        kinds = inspect.signature(target).parameters
        by_name = all(kinds[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for name in bound)
    except (TypeError, ValueError):  # a dotted name, a builtin without signature, or a call that will not bind
        by_name, bound = False, {}
    if not by_name or bound.keys() & kwargs.keys():
        return {ARGS: record_value(args)}
    return {name: record_value(value) for name, value in bound.items()}


def record_value(value: Any) -> Any:
    """Make a value fit to stand in a node and to be saved.

    Dataclass instances and named tuples become recorded calls of their class, so that their fields can be overridden
    and saved. Classes are shielded from OmegaConf, which would take a dataclass for a schema and refuses ``dict``.

    Args:
        value: Any argument of a recorded call.

    Returns:
        The value, or what stands for it.
    """
    if isinstance(value, DictConfig | ListConfig):
        return value
    if isinstance(value, type):
        return AnyNode(value, flags=FLAGS)
    if type(value) is dict:
        return {key: record_value(item) for key, item in value.items()}
    fields = _fields_of(value)
    if fields is not None:
        content = {TARGET: record_value(type(value)), **{name: record_value(item) for name, item in fields.items()}}
        return DictConfig(content, flags=FLAGS)
    if type(value) in (list, tuple):
        return [record_value(item) for item in value]
    return value


def _fields_of(value: Any) -> dict[str, Any] | None:
    """Give the constructor's arguments of a dataclass instance or a named tuple; None for anything else."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    try:  # a hand-written constructor may take something else than the fields
        inspect.signature(type(value)).bind(**fields)
    except (TypeError, ValueError):
        return None
    return fields
