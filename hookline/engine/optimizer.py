"""Parameter groups: which parameters get which learning rate and weight decay."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from hookline.engine.curves import check_value

__all__ = ["NORM_LAYERS", "get_default_optimizer_params", "get_param_groups_by_name", "merge_param_groups"]

NORM_LAYERS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms of all dimensions, SyncBatchNorm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)

# What multiplies which setting of the optimizer, and the names of mmcv and mmengine for the same.
FACTORS = {"lr_factor": "lr", "decay_factor": "weight_decay"}
ALIASES = {"lr_mult": "lr_factor", "decay_mult": "decay_factor"}

logger = logging.getLogger(__name__)


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
            0}}``; they win over all others. One that fits no parameter is warned about: recipes list names that only
            some variants of a model have.

    Returns:
        Groups for a torch optimizer; parameters with equal settings share one.

    Raises:
        ValueError: if a factor is given without ``base_lr``, or is negative or not finite, or biases are set in two
            ways.
    """
    by_name = {name: dict(settings) for name, settings in (overrides or {}).items()}
    bias: dict[str, float] = {}
    if bias_lr_factor is not None and bias_lr_factor != 1.0:
        check_value("bias_lr_factor", bias_lr_factor)
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
            factor = lr_factor_func(prefix + name)
            check_value(f"lr_factor_func({prefix + name!r})", factor)
            settings["lr"] = _needed(base_lr, "lr_factor_func") * factor
        settings.update(by_name.get(name, {}))
        groups.append({"params": [parameter], **settings})
    _warn_of_idle_overrides(overrides or {}, model)
    return merge_param_groups(groups)


def get_param_groups_by_name(
    model: nn.Module,
    base_lr: float,
    weight_decay: float,
    rules: Mapping[str, Mapping[str, float]] | None = None,
    *,
    bias_lr_mult: float | None = None,
    bias_decay_mult: float | None = None,
    norm_decay_mult: float | None = None,
    dwconv_decay_mult: float | None = None,
    flat_decay_mult: float | None = None,
) -> list[dict[str, Any]]:
    """Group a model's trainable parameters by parts of their full names, and by kind, as mmengine does.

    A parameter that a rule fits gets what the rule says and nothing else. All others get the factors of their kind, of
    the decay the first that fits in this order: norm, bias, depth-wise convolution, flat. None leaves a kind alone.
    Shared parameters appear once.

    Args:
        model: its parameters are grouped; those that need no gradient are left out.
        base_lr: learning rate where nothing says otherwise.
        weight_decay: weight decay where nothing says otherwise.
        rules: settings by a part of the name, such as ``{"backbone": {"lr_factor": 0.1}, "norm": {"weight_decay":
            0.0}}``; of several that fit, the longest counts alone, of equally long ones the first in the alphabet.
            ``lr_factor`` (or ``lr_mult``) multiplies ``base_lr``, ``decay_factor`` (or ``decay_mult``) multiplies
            ``weight_decay``; anything else is handed to the optimizer as it is.
        bias_lr_mult: factor of the learning rate of biases, except those of norm layers.
        bias_decay_mult: factor of the weight decay of biases, except those of norm layers.
        norm_decay_mult: factor of the weight decay of all parameters of norm layers.
        dwconv_decay_mult: factor of the weight decay of depth-wise convolutions.
        flat_decay_mult: factor of the weight decay of other parameters with one dimension.

    Returns:
        Groups for a torch optimizer; parameters with equal settings share one.

    Raises:
        ValueError: if a rule fits no parameter (names the nearest), says a thing twice, or has a factor that is
            negative or not finite.
    """
    kinds = _Kinds(bias_lr_mult, bias_decay_mult, norm_decay_mult, dwconv_decay_mult, flat_decay_mult)
    read = {part: _read_rule(part, rule) for part, rule in (rules or {}).items()}
    ordered = sorted(read, key=lambda part: (-len(part), part))
    names, groups = [], []
    for module, prefix, name, parameter in _trainable(model):
        full_name = prefix + name
        names.append(full_name)
        part = next((part for part in ordered if part in full_name), None)
        rule = dict(read[part]) if part is not None else kinds.factors(module, name, parameter)
        lr = base_lr * rule.pop("lr_factor", 1.0)
        decay = weight_decay * rule.pop("decay_factor", 1.0)
        groups.append({"params": [parameter], "lr": lr, "weight_decay": decay, **rule})
    _check_fit(rules or {}, names, model)
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


@dataclass(frozen=True)
class _Kinds:
    """The factors of the kinds of parameters, under mmengine's names."""

    bias_lr_mult: float | None
    bias_decay_mult: float | None
    norm_decay_mult: float | None
    dwconv_decay_mult: float | None
    flat_decay_mult: float | None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None:
                check_value(name, value)

    def factors(self, module: nn.Module, name: str, parameter: nn.Parameter) -> dict[str, float]:
        """Give the factors of a parameter that no rule fits."""
        is_norm, is_bias = isinstance(module, NORM_LAYERS), name == "bias"
        found = {}
        if is_bias and not is_norm and self.bias_lr_mult is not None:
            found["lr_factor"] = self.bias_lr_mult
        for fits, factor in (
            (is_norm, self.norm_decay_mult),
            (is_bias and not is_norm, self.bias_decay_mult),
            (_is_depthwise(module), self.dwconv_decay_mult),
            (parameter.ndim == 1, self.flat_decay_mult),
        ):
            if fits and factor is not None:
                return {**found, "decay_factor": factor}
        return found


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd) and module.groups == module.in_channels > 1


def _read_rule(part: str, rule: Mapping[str, float]) -> dict[str, float]:
    """Give a rule with our names of the factors.

    Raises:
        ValueError: if it says something twice, or a factor is misspelt, negative or not finite.
    """
    found: dict[str, float] = {}
    for key, value in rule.items():
        name = ALIASES.get(key, key)
        if name in FACTORS:
            check_value(f"rules[{part!r}].{key}", value)
            rivals = [other for other in rule if other != key and other in (name, FACTORS[name])]
            if rivals:
                raise ValueError(f"rules[{part!r}]={dict(rule)}: {key} and {rivals[0]} exclude each other")
        elif near := difflib.get_close_matches(key, [*FACTORS, *ALIASES], n=1, cutoff=0.8):
            raise ValueError(f"rules[{part!r}].{key}={value!r}: did you mean {near[0]}?")
        found[name] = value
    return found


def _check_fit(rules: Mapping[str, Mapping[str, float]], trainable: list[str], model: nn.Module) -> None:
    """Look for rules that change nothing.

    Raises:
        ValueError: if a rule fits no parameter at all.
    """
    every = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for part in rules:
        if any(part in name for name in trainable):
            continue
        if not any(part in name for name in every):
            raise ValueError(
                f"rules[{part!r}]={dict(rules[part])}: no parameter's name contains {part!r}; {_nearest(part, every)}"
            )
        logger.warning("rules[%r] fits only frozen or shared parameters: it changes nothing", part)


def _warn_of_idle_overrides(overrides: Mapping[str, Mapping[str, float]], model: nn.Module) -> None:
    every = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for last in overrides:
        if not any(name == last or name.endswith(f".{last}") for name in every):
            logger.warning("overrides[%r]: no parameter has this last name; %s", last, _nearest(last, every))


def _nearest(part: str, names: list[str]) -> str:
    pieces = dict.fromkeys(piece for name in names for piece in (*name.split("."), name))
    near = difflib.get_close_matches(part, pieces, n=3)
    if near:
        return f"nearest: {', '.join(near)}"
    return f"names begin with: {', '.join(dict.fromkeys(name.split('.')[0] for name in names))}"


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
