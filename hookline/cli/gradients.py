"""``train.grad_clip``: how gradients are clipped."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from hookline.cli.checks import check_names
from hookline.cli.errors import UsageError
from hookline.engine import ClipGradNorm, ClipGradValue

__all__ = ["check_gradients", "gradient_clipper"]

BY_NORM = ("max_norm", "norm_type", "per_parameter")
BY_VALUE = ("clip_value",)
EXPECTED = "expected null, a number, {max_norm, norm_type, per_parameter} or {clip_value}"


def check_gradients(cfg: DictConfig) -> None:
    """Check how gradients are to be clipped.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: naming the key, its value and what is expected.
    """
    gradient_clipper(cfg.train.grad_clip)


def gradient_clipper(setting: Any) -> ClipGradNorm | ClipGradValue | None:
    """Read ``train.grad_clip``: a number is the largest norm; a dict says which kind.

    Args:
        setting: null, a number, ``{max_norm, norm_type, per_parameter}`` or ``{clip_value}``.

    Raises:
        UsageError: if it is something else.
    """
    if setting is None:
        return None
    values = {str(k): v for k, v in setting.items()} if isinstance(setting, DictConfig) else {"max_norm": setting}
    by_value = "clip_value" in values
    check_names(values, BY_NORM + BY_VALUE, "train.grad_clip")
    if by_value and len(values) > 1:
        raise UsageError(f"train.grad_clip={setting}: clip_value goes with none of {', '.join(BY_NORM)}")
    try:
        return ClipGradValue(**values) if by_value else ClipGradNorm(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"train.grad_clip={setting}: {error}; {EXPECTED}") from error
