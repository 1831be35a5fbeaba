"""The metrics of a run by name: which there will be, and whether a larger or a smaller value is better."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hookline.cli.errors import UsageError

__all__ = ["MODES", "MetricNames", "guess_rule", "rule_of"]

MODES = {"greater": "max", "less": "min"}
VALIDATION = "validation"

_CLASS_METRIC = re.compile(r"^(AP|AR)\w*-")  # of one class, whose name may be any word
_LESS = re.compile(r"loss|error|perplexity|nll|^(err|mae|mse|rmse|ece|eer|fpr|fnr|wer|cer|mr|lamr|epe|time|latency)$")
_GREATER = re.compile(
    r"^m?(ap|ar)[\dsmlrcf]*$|acc|iou|precision|recall|dice|jaccard|auc|auroc|kappa|psnr|ssim|score"
    r"|^(f\d|fscore|fbeta|map|mar|nds|oks|pck|pq|rq|sq|mota|idf\d|hota|hit|hits|r2|tpr|tnr|top\d*)$"
)
_SHOWN = 20

logger = logging.getLogger(__name__)


def guess_rule(name: str) -> str | None:
    """Guess from a metric's name whether ``greater`` or ``less`` is better; None where it does not tell.

    The last part of the name counts most. Words such as loss and error count more than what they are about, as in
    ``loss_iou``.

    Args:
        name: such as ``bbox/AP`` or ``validation/total_loss``.
    """
    for part in reversed(name.split("/")):
        if _CLASS_METRIC.match(part):
            return "greater"
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", part)  # totalLoss, but not mIoU
        words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]
        for pattern, rule in ((_LESS, "less"), (_GREATER, "greater")):
            if any(pattern.search(word) for word in words):
                return rule
    return None


def rule_of(name: str, rule: str | None, key: str) -> str:
    """Give the rule of a metric: the one that is set, or the guessed one.

    Args:
        name: of the metric.
        rule: the setting.
        key: its path.

    Raises:
        UsageError: if it is neither set nor to be guessed.
    """
    found = rule or guess_rule(name)
    if found is None:
        raise UsageError(
            f"{key}=null: the name of the metric {name!r} does not tell which values are better; set {key}=greater or "
            f"{key}=less"
        )
    return found


@dataclass(frozen=True)
class MetricNames:
    """The metrics that a run will give.

    Attributes:
        known: their names, the most important one first.
        silent: the evaluators that do not tell theirs, by type.
        with_validation: whether there are validation losses, whose names but that of the total are the model's.
    """

    known: Sequence[str]
    silent: Sequence[str] = ()
    with_validation: bool = False

    def primary(self, key: str) -> str:
        """Give the most important metric, which ``auto`` stands for.

        Args:
            key: the path of the setting that asks.

        Raises:
            UsageError: if it is not known.
        """
        if self.known and not self.silent:
            return self.known[0]
        if self.silent:
            raise UsageError(
                f"{key}='auto': {self.silent[0]} does not list its metrics; name one, or write its metric_names()"
            )
        if self.with_validation:
            return f"{VALIDATION}/total_loss"
        raise UsageError(f"{key}='auto': this run evaluates nothing")

    def check(self, name: str, key: str) -> None:
        """Refuse a metric that the run will not give.

        Args:
            name: of the metric.
            key: the path of the setting that names it.

        Raises:
            UsageError: if it cannot be; names the nearest valid ones.
        """
        valid = [*self.known, *([f"{VALIDATION}/total_loss"] if self.with_validation else [])]
        if name in valid or (self.with_validation and self._may_be_a_loss(name)):
            return
        if self.silent and not self.is_validation(name):
            logger.info(f"{key}={name!r} cannot be checked before: {self.silent[0]} does not list its metrics")
            return
        near = difflib.get_close_matches(name, valid, n=3)
        some = ", ".join(valid[:_SHOWN]) + (f" and {len(valid) - _SHOWN} more" if len(valid) > _SHOWN else "")
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        others = "" if self.with_validation else "; losses on a validation set come with train.validation_loss"
        raise UsageError(f"{key}={name!r}: no metric of this run; {hint}There will be: {some or 'none'}{others}")

    @staticmethod
    def is_validation(name: str) -> bool:
        """Tell whether a metric is a validation loss."""
        return name.startswith(f"{VALIDATION}/")

    def _may_be_a_loss(self, name: str) -> bool:
        """Only the first measurement tells the names of a model's losses; but a misspelt total is none."""
        total = f"{VALIDATION}/total_loss"
        return self.is_validation(name) and not difflib.get_close_matches(name, [total], cutoff=0.9)
