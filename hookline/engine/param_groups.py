"""What is in an optimizer's parameter groups: refused where it cannot be, and told in a short table."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["check_param_groups", "describe_param_groups", "left_out", "some_names"]

SHOWN_GROUPS = 30
SHOWN_NAMES = 2

_Groups = list[dict[str, Any]]


def check_param_groups(groups: _Groups, model: nn.Module, defaults: Mapping[str, Any] | None = None) -> None:
    """Refuse groups that cannot be trained with.

    Args:
        groups: parameter groups, as an optimizer takes or has them.
        model: whose parameters they hold.
        defaults: the optimizer's settings by name, if groups may have no others.

    Raises:
        ValueError: if no parameter is trainable, one is in the groups twice, or a setting is unknown, negative or not
            finite; names parameters.
    """
    names = _names(model)
    parameters = [parameter for group in groups for parameter in group["params"]]
    if not any(parameter.requires_grad for parameter in parameters):
        frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        total = len(list(model.parameters()))
        raise ValueError(
            f"nothing to train: {len(frozen)} of the model's {total} parameters are frozen ({some_names(frozen)}) and "
            "the groups hold no other one"
        )
    twice = [number for number, count in Counter(map(id, parameters)).items() if count > 1]
    if twice:
        raise ValueError(
            f"in the parameter groups more than once: {some_names(names.get(number, '?') for number in twice)}"
        )
    for group in groups:
        _check_settings(group, [names.get(id(p), "?") for p in group["params"]], defaults)


def left_out(groups: _Groups, model: nn.Module) -> list[str]:
    """List the trainable parameters of a model that are in no group, by name.

    Args:
        groups: of an optimizer.
        model: the model.
    """
    held = {id(parameter) for group in groups for parameter in group["params"]}
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]


def describe_param_groups(optimizer: torch.optim.Optimizer, model: nn.Module) -> str:
    """Write a table of an optimizer's groups, and count what is frozen.

    Args:
        optimizer: with its groups.
        model: whose parameters they hold.

    Returns:
        Lines: the optimizer with its settings, one row a group (at most 30), the frozen parameters.
    """
    from tabulate import tabulate

    names = _names(model)
    groups = optimizer.param_groups
    others = _other_settings(groups)
    rows: list[list[Any]] = []
    for number, group in enumerate(groups[:SHOWN_GROUPS]):
        first = [*(_number(group.get(key)) for key in ("lr", "weight_decay")), *(f"{group[key]}" for key in others)]
        rows.append(
            [number, *_count(group["params"]), *first, some_names([names.get(id(p), "?") for p in group["params"]])]
        )
    rest = groups[SHOWN_GROUPS:]
    if rest:
        rates = [float(group.get("lr", math.nan)) for group in rest]
        counts = _count(p for group in rest for p in group["params"])
        span = f"{min(rates):.4g} to {max(rates):.4g}"
        rows.append([f"{len(rest)} more", *counts, span, *[""] * (len(others) + 1), ""])
    headers = ("group", "parameters", "tensors", "lr", "weight decay", *others, "of")
    table = tabulate(rows, headers=headers, disable_numparse=True, colalign=("right",) * 5)
    return f"{_title(optimizer)}\n{table}\n{_frozen(model)}"


def _title(optimizer: torch.optim.Optimizer) -> str:
    how = " (fused)" if optimizer.param_groups[0].get("fused") else ""
    tensors = [p for group in optimizer.param_groups for p in group["params"]]
    numbers, count = _count(tensors)
    shown = {key: value for key, value in optimizer.param_groups[0].items() if key in ("momentum", "betas", "nesterov")}
    settings = "".join(f", {key} {value}" for key, value in shown.items() if value)
    return f"Optimizer: {type(optimizer).__name__}{how}{settings}; {numbers} parameters in {count} tensors"


def _frozen(model: nn.Module) -> str:
    frozen = [(name, parameter) for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if not frozen:
        return "Frozen: none"
    numbers, count = _count(parameter for _, parameter in frozen)
    return f"Frozen, left out: {numbers} parameters in {count} tensors, {some_names(name for name, _ in frozen)}"


def _check_settings(group: Mapping[str, Any], names: list[str], defaults: Mapping[str, Any] | None) -> None:
    """Look at one group.

    Raises:
        ValueError: if a setting is unknown, negative or not finite.
    """
    for key, value in group.items():
        if key in ("params", "param_names"):
            continue
        if defaults is not None and key not in defaults:
            near = difflib.get_close_matches(key, defaults, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(defaults)}"
            raise ValueError(f"the group of {some_names(names)} has {key}={value!r}, which is no setting of it; {hint}")
        if key in ("lr", "weight_decay", "momentum") and not (math.isfinite(value) and value >= 0):
            raise ValueError(
                f"the group of {some_names(names)} has {key}={float(value)}: expected a finite number of at least 0"
            )


def _number(value: Any) -> str:
    """Write a setting; an optimizer of a user's own may not have it."""
    return "" if value is None else f"{float(value):.4g}"


def _names(model: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in model.named_parameters()}


def _count(parameters: Iterable[torch.Tensor]) -> tuple[str, int]:
    sizes = [parameter.numel() for parameter in parameters]
    return f"{sum(sizes):,}", len(sizes)


def some_names(names: Iterable[str], count: int = SHOWN_NAMES) -> str:
    """Write the first of some names.

    Args:
        names: any number of them.
        count: so many are written.
    """
    shown = list(names)
    return ", ".join(shown[:count]) + (" ..." if len(shown) > count else "")


def _other_settings(groups: _Groups) -> list[str]:
    """Name the settings in which groups differ, besides learning rate and weight decay."""
    keys = [key for key in groups[0] if key not in ("params", "param_names", "lr", "weight_decay", "initial_lr")]
    return [key for key in keys if any(group.get(key) != groups[0][key] for group in groups)]
