"""Where a config node was made. The note travels with the node through copies, merges and assignments."""

from typing import Any, cast

from omegaconf import DictConfig, ListConfig
from omegaconf.base import Container, Node

# OmegaConf copies a node's metadata object whole, so an attribute of ours on it goes wherever the node goes.
_ORIGIN = "hookline_origin"
_SOURCES = "hookline_sources"
OVERRIDE = "made by the override "


def set_origin(node: Node, origin: str, *, keep: bool = False) -> None:
    """Note where a node was made.

    Args:
        node: The node.
        origin: ``file:line``, or the override that made it.
        keep: Leave an earlier note as it is.
    """
    if not (keep and hasattr(node._metadata, _ORIGIN)):
        setattr(node._metadata, _ORIGIN, origin)


def get_origin(node: Node | None) -> str | None:
    """Find where a node was made.

    Args:
        node: The node, or None.

    Returns:
        The note on the node or, where it has none, on the nearest node around it. None if nobody noted anything.
    """
    while node is not None:
        origin = getattr(node._metadata, _ORIGIN, None)
        if origin is not None:
            return cast(str, origin)
        node = node._get_parent()
    return None


def set_sources(node: Node, files: tuple[str, ...]) -> None:
    """Note which files a config was read from.

    Args:
        node: The root of the config.
        files: Absolute paths, the file that was asked for first.
    """
    setattr(node._metadata, _SOURCES, files)


def get_sources(node: Node) -> tuple[str, ...]:
    """Tell which files a config was read from.

    Args:
        node: The root of the config.

    Returns:
        Absolute paths, the file that was asked for first; empty for a config made in memory.
    """
    return cast("tuple[str, ...]", getattr(node._metadata, _SOURCES, ()))


def full_key(node: Container, key: Any = None) -> str:
    """Spell the way from the root to a node, or to one of its keys.

    Args:
        node: A dictionary or list node.
        key: One of its keys; None for the node itself.

    Returns:
        Such as ``model.backbone.stages[0]``; empty for the root itself.
    """
    # OmegaConf's own spelling forgets the brackets around the index of a list's item.
    steps: list[tuple[Any, Any]] = [] if key is None else [(node, key)]
    parent = node._get_parent()
    while parent is not None:
        steps.append((parent, node._key()))
        assert isinstance(parent, Container)
        node, parent = parent, parent._get_parent()
    spelled = "".join(f"[{k}]" if isinstance(holder, ListConfig) else f".{k}" for holder, k in reversed(steps))
    return spelled.removeprefix(".")


def describe(node: object, key: Any = None) -> str:
    """Name a node for a message: its full key and where it was made.

    Args:
        node: A config node; anything else is named by its type.
        key: One of its keys; None for the node itself.

    Returns:
        Such as ``model.backbone (made at recipe.py:12)``.
    """
    if not isinstance(node, DictConfig | ListConfig):
        return f"a {type(node).__name__}" if key is None else str(key)
    below = None if key is None else node._get_node(key, validate_access=False)
    origin = get_origin(below if isinstance(below, DictConfig | ListConfig) else node)
    name = full_key(node, key) or "the config"
    if origin is None:
        return name
    return f"{name} ({origin if origin.startswith(OVERRIDE) else f'made at {origin}'})"
