"""What happens to a step whose loss or gradients are not finite: it is left out, and its cause is looked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from hookline.distributed import all_gather, any_rank, get_rank
from hookline.engine.anomaly import explain_batch, gradient_table
from hookline.engine.gradients import gradient_norm
from hookline.engine.hook_base import HookBase, SkipStep
from hookline.engine.losses import NonFiniteError

__all__ = ["NonFiniteGuard"]

logger = logging.getLogger(__name__)


class NonFiniteGuard(HookBase):
    """Leaves out, on all ranks, each step in which a loss or a gradient of any rank is not finite.

    Such a step changes neither weights, buffers, optimizer state nor moving averages, and its losses are not recorded.
    The metric ``non_finite_steps`` counts them. To know whether to update, the host must wait for the device in every
    step that is watched, and ranks vote; steps that are not watched cost nothing.

    With fp16 the scaler skips the steps whose gradients overflow, by itself: here only losses count.

    Args:
        every_step: watch all steps; False watches only those that :meth:`watch` names.
        max_skips: more steps left out than this, within the window, end the run.
        window: so many iterations.
        anomaly: run the batches of such a step again, to name the first module with a number that is not finite.

    Raises:
        ValueError: if a limit is out of its range.
    """

    def __init__(
        self, *, every_step: bool = True, max_skips: int = 10, window: int = 1000, anomaly: bool = False
    ) -> None:
        if max_skips < 0 or window < 1:
            raise ValueError(f"max_skips={max_skips}, window={window}: expected at least 0, and at least 1")
        self._every_step = every_step
        self._max_skips = max_skips
        self._window = window
        self._anomaly = anomaly
        self._count = 0
        self._recent: list[int] = []  # the steps left out within the window
        self._watched: list[tuple[int, int]] = []
        self._is_watching = False
        self._buffers: list[torch.Tensor] = []
        self._buffers_before: list[torch.Tensor] = []
        self._parameters: list[torch.Tensor] = []

    def watch(self, first: int, last: int) -> None:
        """Watch some more steps.

        Args:
            first: the first of them.
            last: the last one.
        """
        self._watched.append((first, last))

    @property
    def watched(self) -> list[tuple[int, int]]:
        """The first and the last step of each stretch that :meth:`watch` was told of."""
        return list(self._watched)

    def before_train(self) -> None:
        """Find the buffers that a forward pass may change, and the parameters that are trained."""
        self._buffers = list(self.trainer.model.buffers())
        self._buffers_before = [buffer.clone() for buffer in self._buffers]
        self._parameters = [p for group in self.trainer.optimizer.param_groups for p in group["params"]]

    def before_step(self) -> None:
        """Keep what the forward pass may spoil."""
        iteration = self.trainer.iter
        self._is_watching = self._every_step or any(first <= iteration <= last for first, last in self._watched)
        self.trainer.keep_batches = self._anomaly and self._is_watching
        if self._is_watching and self._buffers:
            torch._foreach_copy_(self._buffers_before, self._buffers)

    def after_backward(self) -> None:
        """Leave the step out if it must be.

        Raises:
            SkipStep: if a loss or a gradient of any rank is not finite.
            NonFiniteError: if that was one too many.
        """
        if not self._is_watching or not any_rank(not self._is_finite()):
            return
        iteration = self.trainer.iter
        report = self._report()  # uses the weights and buffers as they are
        self._put_buffers_back()
        self._count += 1
        self._recent = [*(step for step in self._recent if step > iteration - self._window), iteration]
        self.trainer.storage.put_scalar("non_finite_steps", float(self._count), smoothing_hint=False)
        if len(self._recent) > self._max_skips:
            limit = f"\n  {len(self._recent)} such steps in {self._window} iterations, {self._max_skips} are allowed"
            raise NonFiniteError(report + limit if self._max_skips else report, iteration, of_all_ranks=True)
        logger.warning("%s\n  the step is left out (%d so far)", report, self._count)
        raise SkipStep(f"iteration {iteration}")

    def after_train(self) -> None:
        """Let go of the model's tensors."""
        self._buffers, self._buffers_before, self._parameters = [], [], []

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were left out, which ones lately, and which ones are to be watched."""
        return {"count": self._count, "recent": list(self._recent), "watched": [list(part) for part in self._watched]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting where the run was."""
        self._count, self._recent = state["count"], list(state["recent"])
        self._watched = [(first, last) for first, last in state["watched"]]

    @torch.no_grad()
    def _is_finite(self) -> bool:
        """Look at this rank's losses and gradients; the one place where the host waits for the device."""
        trainer = self.trainer
        losses = [loss.detach().float().reshape(()) for micro in trainer.step_losses for loss in micro.values()]
        measured = torch.stack(losses).sum()
        if not trainer.precision.skips_overflow:
            measured = measured + gradient_norm(self._parameters).to(measured.device)
        return bool(measured.isfinite())

    def _put_buffers_back(self) -> None:
        if self._buffers:
            with torch.no_grad():
                torch._foreach_copy_(self._buffers, self._buffers_before)

    def _report(self) -> str:
        """Say, the same on all ranks, which losses and gradients of which rank are not finite, and why."""
        trainer = self.trainer
        losses = {name: float(loss.detach()) for micro in trainer.step_losses for name, loss in micro.items()}
        is_bad = not all(value - value == 0 for value in losses.values())
        shown = ", ".join(f"{name}={value:.6g}" for name, value in losses.items())
        files = ", ".join(map(str, trainer._files)) or "(the samples have no file_name)"
        own = f"{shown}; files of the batch: {files}" if is_bad else ""
        ranks = all_gather((own, self._explain()))
        has_bad_loss = any(own for own, _ in ranks)
        lines = [f"{'a loss' if has_bad_loss else 'a gradient'} is not finite at iteration {trainer.iter}"]
        for rank, (about, found) in enumerate(ranks):
            lines += [f"rank {rank}: {line}" for line in ([about] if about else []) + found]
        if not has_bad_loss:
            lines += gradient_table(trainer.model)
        return "\n  ".join(lines)

    def _explain(self) -> list[str]:
        if not self._anomaly:
            return []
        self._put_buffers_back()
        lines: list[str] = []
        for micro, batch in enumerate(self.trainer.step_batches):
            try:
                lines += explain_batch(self.trainer, batch, micro)
            except Exception as error:  # what is reported is the step, whatever happens to the search for its cause
                logger.warning("rank %d could not look for the module", get_rank(), exc_info=error)
        return lines
