"""Put what was read into the run: strictly to continue it, leniently to start from weights."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from hookline.engine.checkpoint_errors import CheckpointError
from hookline.engine.checkpoint_match import (
    MatchReport,
    compare,
    load_model_state,
    match_by_suffix,
    without_wrapper_prefix,
)

__all__ = ["restore_leniently", "restore_strictly"]

_logger = logging.getLogger(__name__)

# What a run can do without when it continues: it then starts fresh, which is said.
_OPTIONAL = ("trainer", "hooks")
# What a file holds beside parts that somebody must claim.
_NOT_PARTS = ("model", "iteration", "meta", *_OPTIONAL)


def restore_strictly(path: str, content: Mapping[str, Any], model: nn.Module, parts: Mapping[str, Any]) -> MatchReport:
    """Continue a run: everything must fit, and nothing is changed unless it does.

    Args:
        path: Where the content comes from, for messages.
        content: The file.
        model: The model, without wrappers.
        parts: What has a state besides the model, by key. Without any, the model alone is restored.

    Returns:
        What matched in the model.

    Raises:
        CheckpointError: If names or shapes of the model differ, or a part is in the file only or in the run only.
    """
    state = without_wrapper_prefix(content["model"])
    report = compare(model, state)
    problems = _part_problems(content, parts)
    if not report.is_exact:
        problems.append(f"the model is another one: {report}")
    if problems:
        raise CheckpointError(
            f"cannot resume from {path}:\n- "
            + "\n- ".join(problems)
            + "\nTo start a new run from its weights, load it "
            "instead (--load-from)"
        )
    for key in _OPTIONAL:
        if key in parts and key not in content:
            _logger.warning("%s has no state of %s: it starts fresh", path, key)
    report = load_model_state(model, state)
    loaded = _load_parts(path, content, parts)
    _logger.info("resumed from %s: model, %s", path, ", ".join(loaded) or "nothing else")
    return report


def restore_leniently(
    path: str, content: Mapping[str, Any], model: nn.Module, parts: Mapping[str, Any], *, strict: bool
) -> MatchReport:
    """Start from weights: what fits is taken, the rest is listed.

    Args:
        path: Where the content comes from, for messages.
        content: The file.
        model: The model, without wrappers.
        parts: What is loaded besides the model where the file has it, by key.
        strict: Demand an exact match of the model.

    Returns:
        What matched in the model.

    Raises:
        CheckpointError: If nothing matches, or anything does not with `strict`.
    """
    state = _under_model_names(path, content, model)
    report = compare(model, state)
    if not report.is_exact and strict:
        raise CheckpointError(f"{path} is of another model: {report}")
    report = load_model_state(model, state)
    if state and not report.matched:
        raise CheckpointError(f"{path} is of another model, not one of its values fits: {report}")
    _logger.log(logging.INFO if report.is_exact else logging.WARNING, "weights from %s: %s", path, report)
    for key in parts:
        if key not in content:
            _logger.warning("%s has no state of %s: it keeps its own", path, key)
    _load_parts(path, content, parts)
    return report


def _under_model_names(path: str, content: Mapping[str, Any], model: nn.Module) -> dict[str, torch.Tensor]:
    """Rename by suffix where the file asks for it, or where not one name fits as it is."""
    state = without_wrapper_prefix(content["model"])
    names = list(model.state_dict())
    if not content.get("matching_heuristics") and any(name in state for name in names):
        return state
    renamed = match_by_suffix(state, names)
    if renamed.keys() != state.keys():
        _logger.info("names in %s are ends of names in the model and are matched as such", path)
    return renamed


def _part_problems(content: Mapping[str, Any], parts: Mapping[str, Any]) -> list[str]:
    if not parts:
        return []
    missing = [key for key in parts if key not in content and key not in _OPTIONAL]
    unclaimed = [key for key in content if key not in parts and key not in _NOT_PARTS]
    return [f"the file has no state of {key!r}, which the run has" for key in missing] + [
        f"the file has a state of {key!r}, which the run lacks" for key in unclaimed
    ]


def _load_parts(path: str, content: Mapping[str, Any], parts: Mapping[str, Any]) -> list[str]:
    loaded = [key for key in parts if key in content]
    for key in loaded:
        try:
            if isinstance(parts[key], torch.optim.Optimizer):
                _check_optimizer(parts[key], content[key])
            parts[key].load_state_dict(content[key])
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"the state of {key!r} in {path} does not fit: {error}") from error
    return loaded


def _check_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Compare momentum with parameters: torch itself takes any shape and fails in the first step.

    Raises:
        ValueError: If they differ.
    """
    params = [param for group in optimizer.param_groups for param in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    if len(params) != len(numbers):
        raise ValueError(f"it is for {len(numbers)} parameters, the run's optimizer has {len(params)}")
    for param, number in zip(params, numbers, strict=True):
        for name in ("momentum_buffer", "exp_avg", "exp_avg_sq"):
            value = state["state"].get(number, {}).get(name)
            if isinstance(value, torch.Tensor) and value.shape != param.shape:
                raise ValueError(
                    f"{name} of parameter {number} is {list(value.shape)}, the parameter {list(param.shape)}; "
                    "the parameter groups are in another order"
                )
