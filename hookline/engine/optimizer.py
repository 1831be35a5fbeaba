"""Parameter groups: which parameters get which learning rate and weight decay."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

__all__ = ["NORM_LAYERS", "get_default_optimizer_params", "get_param_groups_by_name", "merge_param_groups"]

NORM_LAYERS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms of all dimensions, SyncBatchNorm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Group a model's trainable parameters, with own settings for norm layers and biases.

    What is None stays with the optimizer's default. Shared parameters appear once.

    Args:
        model: its parameters are grouped; those that need no gradient are left out.
        base_lr: learning rate of all groups; needed for the factors.
        weight_decay: weight decay of all groups.
        weight_decay_norm: weight decay of all parameters of normalisation layers.
        bias_lr_factor: factor of the learning rate of parameters called ``bias``.
        weight_decay_bias: weight decay of parameters called ``bias``.
        lr_factor_func: from the full name, such as ``backbone.stem.conv1.weight``, to a factor of the learning rate.
        overrides: settings by a parameter's last name, such as ``{"relative_position_bias_table": {"weight_decay":
            0}}``; they win over all others.

    Returns:
        Groups for a torch optimizer; parameters with equal settings share one.

    Raises:
        ValueError: if a factor is given without ``base_lr``, or biases are set in two ways.
    """
    by_name = {name: dict(settings) for name, settings in (overrides or {}).items()}
    bias: dict[str, float] = {}
    if bias_lr_factor is not None and bias_lr_factor != 1.0:
        bias["lr"] = _needed(base_lr, "bias_lr_factor") * bias_lr_factor
    if weight_decay_bias is not None:
        bias["weight_decay"] = weight_decay_bias
    if bias:
        if "bias" in by_name:
            raise ValueError("biases are set twice: by bias_lr_factor or weight_decay_bias, and by overrides['bias']")
        by_name["bias"] = bias
    defaults = {key: value for key, value in (("lr", base_lr), ("weight_decay", weight_decay)) if value is not None}
    groups = []
    for module, prefix, name, parameter in _trainable(model):
        settings = dict(defaults)
        if weight_decay_norm is not None and isinstance(module, NORM_LAYERS):
            settings["weight_decay"] = weight_decay_norm
        if lr_factor_func is not None:
            settings["lr"] = _needed(base_lr, "lr_factor_func") * lr_factor_func(prefix + name)
        settings.update(by_name.get(name, {}))
        groups.append({"params": [parameter], **settings})
    return merge_param_groups(groups)


def get_param_groups_by_name(
    model: nn.Module,
    base_lr: float,
    weight_decay: float,
    rules: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Group a model's trainable parameters by parts of their full names.

    Args:
        model: its parameters are grouped; those that need no gradient are left out.
        base_lr: learning rate where no rule says otherwise.
        weight_decay: weight decay where no rule says otherwise.
        rules: settings by a part of the name, such as ``{"backbone": {"lr_factor": 0.1}, "norm": {"weight_decay":
            0.0}}``; of several that fit, the longest counts alone. ``lr_factor`` multiplies ``base_lr`` and
            ``decay_factor`` multiplies ``weight_decay``; anything else is handed to the optimizer as it is.

    Returns:
        Groups for a torch optimizer; parameters with equal settings share one.

    Raises:
        ValueError: if a rule fits no trainable parameter; names the nearest ones.
    """
    rules = rules or {}
    ordered = sorted(rules, key=lambda part: (-len(part), part))
    names, groups = [], []
    for _, prefix, name, parameter in _trainable(model):
        full_name = prefix + name
        names.append(full_name)
        part = next((part for part in ordered if part in full_name), None)
        rule = dict(rules[part]) if part is not None else {}
        lr = base_lr * rule.pop("lr_factor", 1.0)
        decay = weight_decay * rule.pop("decay_factor", 1.0)
        groups.append({"params": [parameter], "lr": lr, "weight_decay": decay, **rule})
    for part in ordered:
        if not any(part in name for name in names):
            near = difflib.get_close_matches(part, {piece for name in names for piece in (name, *name.split("."))}, n=3)
            raise ValueError(f"the rule {part!r} fits no trainable parameter; nearest: {', '.join(near) or names[:3]}")
    return merge_param_groups(groups)


def merge_param_groups(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the parameters of all groups with equal settings into one, which lets optimizers work on many at once.

    Args:
        groups: parameter groups, each with ``params`` and settings.

    Returns:
        New groups in the order in which their settings first occur.
    """
    merged: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
    for group in groups:
        settings = {key: value for key, value in group.items() if key != "params"}
        key = tuple(sorted(settings.items()))
        merged.setdefault(key, {"params": [], **settings})["params"].extend(group["params"])
    return list(merged.values())


def _trainable(model: nn.Module) -> Iterator[tuple[nn.Module, str, str, nn.Parameter]]:
    """Yield (owner, prefix of its full name, own name, parameter) of each trainable parameter once."""
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        prefix = f"{module_name}." if module_name else ""
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield module, prefix, name, parameter


def _needed(base_lr: float | None, factor: str) -> float:
    if base_lr is None:
        raise ValueError(f"{factor} multiplies base_lr, which is not given")
    return base_lr
