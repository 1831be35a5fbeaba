"""The one trainer for models that return losses."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from hookline.distributed import get_rank, get_world_size
from hookline.engine.batches import BatchStream, file_names
from hookline.engine.events import EventStorage, get_event_storage
from hookline.engine.every import Every
from hookline.engine.fully_sharded import last_unit
from hookline.engine.gradients import GradientClipper, build_clipper, unsynchronized
from hookline.engine.hook_base import HookBase, SkipStep
from hookline.engine.launch_causes import has_lost_contact
from hookline.engine.losses import LossLedger, as_losses, sum_losses
from hookline.engine.precision import Precision, build_precision
from hookline.engine.processes import explain_out_of_memory
from hookline.engine.randomness import StepSeeder
from hookline.engine.train_loop import TrainerBase

__all__ = ["SimpleTrainer"]

HOOK_STREAM = 0xFFFF  # what hooks draw with torch in before_step; the batches of a step use the streams 0, 1, ...

_TOGETHER = nullcontext()

logger = logging.getLogger(__name__)


class SimpleTrainer(TrainerBase):
    """Minimises the sum of the losses that a model returns, with one optimizer and one loader.

    What varies is handed in: the precision, how many batches make a step, how gradients are clipped. The random draws
    of step k on rank r depend on (seed, k, r) only, so a run goes on after a resume as if it had never stopped.

    Losses stay on the device. Every ``gather_metric_period`` steps all ranks read them at once, average them, and stop
    with an error if one is not finite.

    Args:
        model: called with a batch; in training it returns a dict of scalar losses, or one scalar. It is put into
            training mode.
        data_loader: iterable of batches. With ``seek(num_batches)`` a resumed run goes on with the right batch.
        optimizer: updates the model.
        gather_metric_period: iterations between two readings of the losses; best the period of the writers.
        zero_grad_before_forward: clear gradients before the forward pass instead of before backward.
        precision: ``fp32``, ``tf32``, ``bf16``, ``fp16``, or an object that does it.
        accumulate: batches per optimizer step; an iteration is an optimizer step. Gradients and recorded losses are
            means over the batches.
        grad_clip: a :class:`~hookline.engine.gradients.ClipGradNorm`, ``ClipGradValue`` or the like; a number is the
            largest norm of all gradients together.
        seed: the run's seed; None leaves the generators alone, then a resumed run draws other numbers.

    Attributes:
        step_losses: within a step, the losses of each of its batches so far.
        step_batches: within a step, its batches so far, where ``keep_batches`` is set.
        keep_batches: whether somebody wants to look at the batches of the step at its end.

    Raises:
        ValueError: if ``accumulate`` or ``gather_metric_period`` is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 20,
        zero_grad_before_forward: bool = False,
        *,
        precision: str | Precision = "fp32",
        accumulate: int = 1,
        grad_clip: float | GradientClipper | None = None,
        seed: int | None = 0,
    ) -> None:
        super().__init__()
        for name, value in (("accumulate", accumulate), ("gather_metric_period", gather_metric_period)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        model.train()
        self.model = model
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.precision = build_precision(precision, _device_type(model)) if isinstance(precision, str) else precision
        self.accumulate = accumulate
        self.grad_clip = build_clipper(grad_clip)
        self.seed = seed
        self._seeder = StepSeeder(seed, get_rank()) if seed is not None else None
        self._seeded_iter = -1
        self._files: list[str] = []  # of the step's batches so far
        self.step_losses: list[dict[str, torch.Tensor]] = []
        self.step_batches: list[Any] = []
        self.keep_batches = False
        self._hooks_may_draw = False
        self._data_loader_iter = BatchStream(data_loader)
        self._ledger = LossLedger()
        self._recorded_in: EventStorage | None = None
        self._gathering = Every(gather_metric_period, last=True)

    @property
    def data_loader(self) -> Any:
        """The loader that training takes its batches from."""
        return self._data_loader_iter.loader

    @data_loader.setter
    def data_loader(self, loader: Iterable[Any]) -> None:
        self._data_loader_iter.close()
        self._data_loader_iter = BatchStream(loader)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the steps ``start_iter`` to ``max_iter - 1``; the loader goes on behind the batches of earlier steps.

        Args:
            start_iter: the first step, from 0.
            max_iter: the number of steps of the whole run.
        """
        self._data_loader_iter.seek(start_iter * self.accumulate)
        try:
            super().train(start_iter, max_iter)
        except Exception as error:
            if has_lost_contact(error):
                unit = f"; the unit that began last here was {last_unit(self.model)!r}" if last_unit(self.model) else ""
                where = f"rank {get_rank()} stops at iteration {self.iter}"
                logger.warning("%s: it lost contact with other ranks%s", where, unit)
                raise
            batch = f"; its batch: {', '.join(map(str, self._files))}" if self._files else ""
            name = type(error).__name__
            logger.error("rank %d failed at iteration %d with %s%s", get_rank(), self.iter, name, batch)
            if isinstance(error, torch.OutOfMemoryError):
                logger.error("%s\n%s", explain_out_of_memory(), torch.cuda.memory_summary(abbreviated=True))
            raise
        finally:
            self._data_loader_iter.close()

    def before_step(self) -> None:
        """Seed the generators, then call the hooks' ``before_step``."""
        self._seed_step(torch_too=self._hooks_may_draw)
        super().before_step()

    def after_train(self) -> None:
        """Call the hooks' ``after_train``; what fails there after the last step is not its batch's fault."""
        if self.iter >= self.max_iter:
            self._files = []
        super().after_train()

    def run_step(self) -> None:
        """Do one optimizer step.

        Raises:
            RuntimeError: if the model is in evaluation mode.
        """
        if not self.model.training:
            raise RuntimeError(
                f"the model is in evaluation mode at iteration {self.iter}: call trainer.model.train() after evaluating"
            )
        if self._seeded_iter != self.iter:  # inside another trainer, which does not call before_step
            self._seed_step(torch_too=False)
        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        data_time = 0.0
        micro_losses = self.step_losses = []
        self.step_batches = []
        files = self._files = []
        for micro in range(self.accumulate):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            files += file_names(batch)
            if self.keep_batches:
                self.step_batches.append(batch)
            micro_losses.append(self._forward_backward(batch, micro))
        self.precision.unscale(self.optimizer)
        try:
            self.after_backward()
        except SkipStep:
            self.precision.discard(self.optimizer)
            self.step_skipped = True
            self._gather_if_due()
        else:
            self._clip_gradients()
            self.precision.step(self.optimizer)
            self.step_skipped = self.precision.skipped
            self._record(micro_losses, data_time, files)
        self.step_losses, self.step_batches = [], []

    def flush_metrics(self, hook: HookBase | None = None) -> None:
        """Bring all measured values to the host and raise if a loss is not finite.

        Args:
            hook: the hook that asks. If it is registered on every rank, all ranks average their losses, so every rank
                must come here at the same iteration; otherwise this rank looks at its own losses.
        """
        if hook is not None and get_world_size() > 1 and self._is_shared(hook):
            self._gather()
        else:
            super().flush_metrics()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs of the trainer itself, without model, optimizer and hooks."""
        own = {"seed": self.seed, "accumulate": self.accumulate, "precision": self.precision.state_dict()}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave; what the run now sets otherwise is named in a warning.

        Args:
            state: what was saved.
        """
        super().load_state_dict(state)
        self.precision.load_state_dict(state.get("precision", {}))
        for name in ("seed", "accumulate"):
            if name in state and state[name] != getattr(self, name):
                logger.warning(
                    "resuming with %s=%r, but the run so far had %r: it will not go on exactly",
                    *(name, getattr(self, name), state[name]),
                )

    def checkpointables(self) -> dict[str, Any]:
        """Return what a checkpoint holds besides the model: optimizer, trainer, hooks."""
        return {"optimizer": self.optimizer, **super().checkpointables()}

    def _compile(self) -> None:
        """See the base class; hookline's own hooks draw nothing before a step, so for those nothing is seeded."""
        super()._compile()
        callers = (getattr(call, "__self__", None) for call in self._calls["before_step"])
        self._hooks_may_draw = any(not type(caller).__module__.startswith("hookline.engine.") for caller in callers)

    def _seed_step(self, torch_too: bool) -> None:
        self._seeded_iter = self.iter
        if self._seeder is not None:
            self._seeder.seed_python(self.iter)
            if torch_too:
                self._seeder.seed_torch(self.iter, HOOK_STREAM)

    def _forward_backward(self, batch: Any, micro: int) -> dict[str, torch.Tensor]:
        """Add the gradients of one batch; ranks reduce them with the last batch of the step.

        Returns:
            The losses.
        """
        if self._seeder is not None:  # a loader without workers may have drawn
            self._seeder.seed_torch(self.iter, micro)
        together = _TOGETHER if micro + 1 == self.accumulate else unsynchronized(self.model)
        with together:
            with self.precision.forward():
                losses = as_losses(self.model(batch))
                total = sum_losses(losses)
            if self.accumulate > 1:
                total = total / self.accumulate
            if micro == 0 and not self.zero_grad_before_forward:
                self.optimizer.zero_grad()
            self.precision.backward(total)
        return losses

    def _clip_gradients(self) -> None:
        if self.grad_clip is None:
            return
        groups = self.optimizer.param_groups
        parameters = [p for group in groups for p in group["params"] if p.grad is not None]
        norm = self.grad_clip(parameters)
        if norm is not None:
            get_event_storage().put_scalar("grad_norm", norm)

    def _record(
        self, micro_losses: list[dict[str, torch.Tensor]], data_time: float, files: list[str], prefix: str = ""
    ) -> None:
        """Note a step's losses, and read those of the last steps when it is time."""
        storage = get_event_storage()
        if storage is not self._recorded_in:
            storage.add_source(self._ledger)
            self._recorded_in = storage
        self._ledger.add(self.iter, micro_losses, data_time, files, prefix)
        self._gather_if_due()

    def _write_metrics(self, loss_dict: Mapping[str, torch.Tensor], data_time: float, prefix: str = "") -> None:
        """Note the losses of a step, for subclasses with their own ``run_step``.

        Args:
            loss_dict: scalar tensors by name.
            data_time: seconds that the step waited for data.
            prefix: put before the names, where a step has several such dicts.
        """
        self._record([as_losses(loss_dict)], data_time, [], prefix)

    def _gather_if_due(self) -> None:
        if self._gathering(self.iter, self.max_iter):
            self._gather()

    def _gather(self) -> None:
        storage = get_event_storage()
        storage.flush()
        for name, value in self.precision.metrics().items():
            storage.put_scalar(name, value, smoothing_hint=False)
        self._ledger.gather(storage)


def _device_type(model: nn.Module) -> str:
    """Return where the model is, ``cpu`` when it has no parameters."""
    parameter = next(model.parameters(), None)
    return "cpu" if parameter is None else parameter.device.type
