"""Write a config as a recipe: Python that a person reads and ``LazyConfig.load`` loads."""

import keyword
import unicodedata
from typing import Any

from omegaconf import DictConfig

from hookline.config.errors import ConfigError
from hookline.config.lazy import TARGET
from hookline.config.plain import to_plain

_WIDTH = 110
_HEADER = "from hookline.config import LazyCall as L\n"
_TAKEN = ("L", "dict", "float")


def to_py(cfg: DictConfig) -> str:
    """Write a config as a recipe.

    Args:
        cfg: The config.

    Returns:
        The source text; targets stand as dotted names, interpolations as they are.

    Raises:
        ConfigError: If a value cannot be saved, or a top-level key is no name in Python.
    """
    plain = to_plain(cfg)
    for key in plain:
        if not _is_name(key) or key.startswith("_") or key in _TAKEN:
            raise ConfigError(f"{key!r} at the top of the config cannot be the name of a node in a recipe")
    statements = [f"{key} = {_render(value, 0, len(key) + 3)}\n" for key, value in plain.items()]
    if not all(isinstance(value, dict | list) for value in plain.values()):
        # Only dictionaries, lists and calls are nodes by themselves; __all__ makes nodes of the others.
        statements.append(f"__all__ = {_render(list(plain), 0, 10)}\n")
    return "\n".join([_HEADER, *statements])


def _is_name(key: object) -> bool:
    """Tell whether a key can be written as a name or a keyword argument."""
    if not (isinstance(key, str) and key.isidentifier()) or keyword.iskeyword(key):
        return False
    return unicodedata.normalize("NFKC", key) == key  # what Python makes of a name while it reads it


def _render(value: Any, indent: int, used: int) -> str:
    """Write a value, on one line if it fits.

    Args:
        value: Plain data.
        indent: Columns before the line on which the value begins.
        used: Columns of that line taken by what stands before the value, without the indentation.

    Returns:
        The expression.
    """
    opening, items, closing = _parts(value)
    if items is None:
        return opening
    inline = opening + ", ".join(f"{name}{_render(item, 0, -(10**6))}" for name, item in items) + closing
    if indent + used + len(inline) <= _WIDTH:
        return inline
    deeper = indent + 4
    lines = [f"{' ' * deeper}{name}{_render(item, deeper, len(name) + 1)},\n" for name, item in items]
    return f"{opening}\n{''.join(lines)}{' ' * indent}{closing}"


def _parts(value: Any) -> tuple[str, list[tuple[str, Any]] | None, str]:
    """Split a value into an opening, named items and a closing; a value without items is all opening."""
    if isinstance(value, list):
        return "[", [("", item) for item in value], "]"
    if isinstance(value, dict) and TARGET in value:
        arguments = {key: item for key, item in value.items() if key != TARGET}
        opening = f"L({_render(value[TARGET], 0, -(10**6))})("
        if all(_is_name(key) for key in arguments):
            return opening, [(f"{key}=", item) for key, item in arguments.items()], ")"
        return f"{opening}**{{", [(f"{_parts(key)[0]}: ", item) for key, item in arguments.items()], "})"
    if isinstance(value, dict):
        if all(_is_name(key) for key in value):
            return "dict(", [(f"{key}=", item) for key, item in value.items()], ")"
        return "{", [(f"{_parts(key)[0]}: ", item) for key, item in value.items()], "}"
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return f'float("{value}")', None, ""
    if isinstance(value, str):
        return _quoted(value), None, ""
    return repr(value), None, ""


def _quoted(text: str) -> str:
    """Write a text in double quotes where that needs no more escapes."""
    plain = repr(text)
    return f'"{plain[1:-1]}"' if plain[0] == "'" and '"' not in plain and "\\'" not in plain else plain
