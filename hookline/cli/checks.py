"""Checks of single settings, whose errors name the key, the value and what would be valid."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hookline.cli.errors import UsageError

__all__ = ["check_group", "check_names", "expect_bool", "expect_int", "expect_number", "expect_one_of", "nearest"]


def check_names(names: Iterable[Any], known: Collection[str], prefix: str, where: str = "") -> None:
    """Compare the keys of a node with those that are read.

    Args:
        names: the keys.
        known: those that there are.
        prefix: the node's path, such as ``train.checkpointer``.
        where: put before the message, such as the recipe's file.

    Raises:
        UsageError: naming the first one that is unknown, and the nearest one that is not.
    """
    for key in map(str, names):
        if key not in known:
            hint = nearest(key, known, prefix=f"{prefix}.")
            hint += "" if hint.endswith("?") else "."
            raise UsageError(f"{where}unknown setting {prefix}.{key}; {hint} Own values belong outside of `train`")


def expect_int(key: str, value: Any, least: int) -> None:
    """Check a whole number.

    Args:
        key: the setting's path below ``train``.
        value: what it is.
        least: the smallest valid value.

    Raises:
        UsageError: if it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"train.{key}={value!r}: expected a whole number of at least {least}")


def expect_number(key: str, value: Any, least: float, *, exclusive: bool = False) -> None:
    """Check a finite number.

    Args:
        key: the setting's path below ``train``.
        value: what it is.
        least: the smallest valid value.
        exclusive: the value must be above ``least``.

    Raises:
        UsageError: if it is something else.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < least or (exclusive and value == least):
        bound = "above" if exclusive else "of at least"
        raise UsageError(f"train.{key}={value!r}: expected a number {bound} {least:g}")


def expect_one_of(key: str, value: Any, valid: Collection[str]) -> None:
    """Check a choice.

    Args:
        key: the setting's path below ``train``.
        value: what it is.
        valid: the choices.

    Raises:
        UsageError: if it is none of them; names the nearest.
    """
    if value not in valid:
        raise UsageError(f"train.{key}={value!r}: {nearest(str(value), valid)}")


def nearest(name: str, valid: Collection[str], *, prefix: str = "") -> str:
    """Say what could have been meant: the nearest valid name, or else all of them.

    Args:
        name: what was given.
        valid: what there is.
        prefix: put before the nearest name.
    """
    near = difflib.get_close_matches(name, valid, n=1)
    return f"did you mean {prefix}{near[0]}?" if near else f"expected one of {', '.join(valid)}"


def expect_bool(key: str, value: Any) -> None:
    """Check a switch.

    Args:
        key: the setting's path below ``train``.
        value: what it is.

    Raises:
        UsageError: if it is something else.
    """
    if not isinstance(value, bool):
        raise UsageError(f"train.{key}={value!r}: expected true or false")


def check_group(key: str, group: Any, known: Collection[str]) -> dict[str, Any]:
    """Check a group of settings that is off where it is null: it must be a dict, with keys that there are.

    Args:
        key: the group's path below ``train``.
        group: what it is.
        known: the keys that are read.

    Returns:
        Its settings as a plain dict.

    Raises:
        UsageError: if it is no dict, or has an unknown key; names the nearest.
    """
    if not isinstance(group, Mapping):
        raise UsageError(f"train.{key}={group!r}: expected null, or a dict with some of {', '.join(known)}")
    check_names(group, known, f"train.{key}")
    return {str(name): value for name, value in group.items()}
