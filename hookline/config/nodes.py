"""Read config nodes: values by key with errors that name the place, and the children of a node."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from hookline.config.errors import ConfigError, did_you_mean
from hookline.config.lazy import TARGET
from hookline.config.origin import describe

_REFERENCE = re.compile(r"\$\{([^\s:${}]+)\}")


def is_record(node: object) -> bool:
    """Tell whether a node is a recorded call.

    Args:
        node: Anything.

    Returns:
        True for a dictionary, OmegaConf's or plain, that has a ``_target_``.
    """
    if isinstance(node, DictConfig) and (node._is_none() or node._is_missing() or node._is_interpolation()):
        return False
    return isinstance(node, Mapping) and TARGET in node


def read(node: Any, key: Any) -> Any:
    """Read a value, its interpolations resolved against the root of the config.

    Args:
        node: A dictionary or list.
        key: Key or index.

    Returns:
        The value; containers stay nodes.

    Raises:
        ConfigError: If the value is missing or its interpolation leads nowhere.
    """
    try:
        return node[key]
    except MissingMandatoryValue as error:
        raise ConfigError(f"{describe(node, key)}: the value is missing (???); give it one") from error
    except InterpolationKeyError as error:
        raise ConfigError(f"{describe(node, key)}: {_dead_reference(node, key)}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{describe(node, key)}: {str(error).splitlines()[0]}") from error


def children(node: Any) -> Iterator[tuple[Any, Any, bool]]:
    """List what a node holds.

    Args:
        node: Any value of a config.

    Yields:
        Key, child node (None below plain containers), and whether the child is the node's own (not an interpolation).
    """
    if isinstance(node, DictConfig | ListConfig):
        if node._is_none() or node._is_missing() or node._is_interpolation():
            return
        keys: Any = list(node.keys()) if isinstance(node, DictConfig) else range(len(node))
        for key in keys:
            child: Any = node._get_node(key)
            yield key, child if isinstance(child, DictConfig | ListConfig) else None, not child._is_interpolation()
    elif isinstance(node, Mapping | list | tuple):
        for key in node if isinstance(node, Mapping) else range(len(node)):
            yield key, None, True


def _dead_reference(node: Any, key: Any) -> str:
    """Say which part of an interpolation does not exist, and what is near."""
    raw = str(node._get_node(key)._value())
    for reference in _REFERENCE.findall(raw):
        dots = len(reference) - len(reference.lstrip("."))
        found: Any = node._get_root() if dots == 0 else node
        for _ in range(dots - 1):
            found = found._get_parent() if found is not None else None
        parts = re.split(r"[.\[]", reference.lstrip(".").replace("]", ""))
        for part in parts:
            options = list(found.keys()) if isinstance(found, DictConfig) else []
            if part in options:
                found = found._get_node(part)
            elif isinstance(found, ListConfig) and part.isdigit() and int(part) < len(found):
                found = found._get_node(int(part))
            else:
                return f"{raw} leads nowhere: there is no {part!r} in {describe(found)}{did_you_mean(part, options)}"
    return f"{raw} leads nowhere"
