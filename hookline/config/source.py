"""Read the source of a recipe: its code, and the lines where its dictionaries stand."""

import ast
from pathlib import Path
from types import CodeType

from hookline.config.errors import ConfigError


def parse(path: Path) -> tuple[ast.Module, CodeType]:
    """Parse and compile a recipe.

    Args:
        path: The file.

    Returns:
        Its syntax tree and its code.

    Raises:
        ConfigError: If it cannot be read or is no Python.
    """
    try:
        tree = ast.parse(path.read_bytes(), str(path))
        return tree, compile(tree, str(path), "exec", dont_inherit=True)
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from error
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: this recipe is no valid Python: {error.msg}") from error
    except ValueError as error:  # a zero byte
        raise ConfigError(f"{path}: this recipe is no valid Python: {error}") from error


def dict_lines(tree: ast.Module) -> list[tuple[tuple[str, ...], int]]:
    """Find the dictionaries that top-level assignments write out.

    Args:
        tree: A parsed recipe.

    Returns:
        Their key paths, beginning with the name assigned to, and their lines; later assignments come later.
    """
    found = []
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            found += _dicts_in(statement.value, (statement.targets[0].id,))
    return found


def _dicts_in(value: ast.expr, keys: tuple[str, ...]) -> list[tuple[tuple[str, ...], int]]:
    """Find the dictionaries in an expression, as key paths with lines."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict":
        items = [(keyword.arg, keyword.value) for keyword in value.keywords if keyword.arg]
    elif isinstance(value, ast.Dict):
        items = [
            (key.value, item)
            for key, item in zip(value.keys, value.values, strict=True)
            if isinstance(key, ast.Constant) and isinstance(key.value, str)
        ]
    else:
        return []
    return [(keys, value.lineno)] + [found for key, item in items for found in _dicts_in(item, (*keys, key))]
