"""Statistics of batch norm measured over many batches, instead of a moving average of past ones."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import nn

from hookline.distributed import all_gather, get_rank
from hookline.engine.batches import BatchStream
from hookline.engine.checkpoint_match import unwrap_model
from hookline.engine.events import EventStorage
from hookline.engine.every import Every
from hookline.engine.hook_base import HookBase
from hookline.engine.hooks.average import AverageHook
from hookline.engine.hooks.validation_loss import untouched
from hookline.engine.randomness import StepSeeder

__all__ = ["PreciseBN", "get_bn_modules", "update_bn_stats"]

logger = logging.getLogger(__name__)

_BatchNorm = nn.modules.batchnorm._BatchNorm


class PreciseBN(HookBase):
    """Sets the running statistics of batch norm to their true values over ``num_iter`` batches.

    It does so every ``period`` iterations and at the end. Register it on every rank, in front of the hooks that save
    and evaluate. Only the running mean and variance of batch norm in training mode change: frozen norms, parameters,
    gradients, generators and the training stream stay as they are. The batches are those that training will draw
    next, where the loader has ``seek``, else those of a new iteration, so a resumed run measures the same.

    Args:
        period: iterations between two measurements; 0 for the end only.
        model: the model; wrappers are looked through.
        data_loader: iterable of batches like those of training, such as the training loader itself.
        num_iter: how many batches each rank looks at.
        averages: hooks whose averaged weights get statistics of their own.
        seed: of the model's draws.

    Raises:
        ValueError: if ``num_iter`` is not positive.

    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3.
    """

    def __init__(
        self,
        period: int | Every,
        model: nn.Module,
        data_loader: Iterable[Any],
        num_iter: int,
        *,
        averages: Sequence[AverageHook] = (),
        seed: int = 0,
    ) -> None:
        if num_iter < 1:
            raise ValueError(f"num_iter={num_iter}: expected at least 1")
        self._every = Every.of(period)
        self._model = unwrap_model(model)
        self._loader = data_loader
        self._num_iter = num_iter
        self._averages = tuple(averages)
        self._seeder = StepSeeder(seed, get_rank())
        self._done_iter = -1

    def before_train(self) -> None:
        """Say what there is to measure."""
        self._done_iter = self.trainer.start_iter - 1
        count = len(get_bn_modules(self._model))
        logger.info(f"PreciseBN: {count} norms to measure" if count else "PreciseBN: no batch norm in training mode")

    def after_step(self) -> None:
        """Measure when it is time."""
        iteration = self.trainer.iter
        if self._every(iteration) or iteration + 1 >= self.trainer.max_iter:
            self.update_stats()

    def after_train(self) -> None:
        """Measure at the end of a run that ended before its last iteration, unless training failed."""
        trainer = self.trainer
        if trainer.iter >= trainer.max_iter and self._done_iter < trainer.iter - 1:
            trainer.iter -= 1  # the last step that was made
            try:
                self.update_stats()
            finally:
                trainer.iter += 1

    def update_stats(self) -> None:
        """Measure and set the statistics now; all ranks together."""
        iteration = self._done_iter = self.trainer.iter
        if not get_bn_modules(self._model):
            return
        for hook in self._averages:
            if hook.ready:
                with hook.averaged():
                    hook.adopt(self._measure(iteration))
        self._measure(iteration)
        logger.info(f"PreciseBN: statistics of {self._num_iter} batches per process, after iteration {iteration}")

    def _measure(self, iteration: int) -> list[torch.Tensor]:
        forward = getattr(getattr(self.trainer, "precision", None), "forward", nullcontext)
        with closing(self._batches(iteration)) as batches:
            return update_bn_stats(self._model, batches, self._num_iter, forward=forward)

    def _batches(self, iteration: int) -> Generator[Any, None, None]:
        """Give batches that depend on the iteration only."""
        loader: Any = self._loader
        if hasattr(loader, "seek"):
            loader = copy.copy(loader)  # with a position of its own
            loader.seek((iteration + 1) * getattr(self.trainer, "accumulate", 1))
        self._seeder.seed_python(iteration)
        self._seeder.seed_torch(iteration)
        stream = BatchStream(loader)
        try:
            for index, batch in enumerate(stream):
                self._seeder.seed_torch(iteration, index)
                yield batch
        finally:
            stream.close()


def get_bn_modules(model: nn.Module) -> list[nn.Module]:
    """List the batch norms that follow running statistics in training: neither frozen nor in evaluation mode.

    Args:
        model: any module.
    """
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and module.running_mean is not None
    ]


def update_bn_stats(
    model: nn.Module,
    data_loader: Iterable[Any],
    num_iters: int = 200,
    *,
    forward: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[torch.Tensor]:
    """Set the running statistics of batch norm to those of all values that reach it in some batches of all ranks.

    The model runs in the mode in which it is, thus normalises with the statistics of each batch. A norm that meets no
    value keeps what it had.

    Args:
        model: without a wrapper for data parallelism.
        data_loader: batches; begun again where there are fewer than ``num_iters``.
        num_iters: how many batches each rank looks at.
        forward: gives the context of the forward pass, such as that of a precision.

    Returns:
        The buffers that were set.
    """
    norms = get_bn_modules(model)
    if not norms:
        return []
    with untouched(model), torch.no_grad(), EventStorage(), _Sums(norms) as sums, _uncompiled():
        for batch in islice(BatchStream(data_loader), num_iters):
            with forward():
                model(batch)
    return sums.write()


class _Sums:
    """Sums up what reaches each norm, over all calls: per channel the count, the values and their squares."""

    def __init__(self, norms: Sequence[Any]) -> None:
        self._norms = norms
        self._sums = [torch.zeros(3, n.num_features, dtype=torch.float64, device=n.running_mean.device) for n in norms]
        self._stack = ExitStack()

    def __enter__(self) -> _Sums:
        for norm, sums in zip(self._norms, self._sums, strict=True):
            handle = norm.register_forward_pre_hook(partial(_add, sums))
            self._stack.callback(handle.remove)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    @torch.no_grad()
    def write(self) -> list[torch.Tensor]:
        """Add the sums of all ranks up and set mean and unbiased variance; returns the buffers."""
        totals = torch.stack(all_gather(torch.cat(self._sums, 1).cpu())).sum(0)
        buffers = []
        for norm, (count, first, second) in zip(
            self._norms, totals.split([n.num_features for n in self._norms], 1), strict=True
        ):
            if not count[0]:
                continue
            mean = first / count
            variance = (second / count - mean * mean).clamp(min=0) * count / (count - 1).clamp(min=1)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            buffers += [norm.running_mean, norm.running_var]
        return buffers


def _add(sums: torch.Tensor, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    x = inputs[0].float()
    if x.numel() == 0:
        return
    variance, mean = torch.var_mean(x, [axis for axis in range(x.dim()) if axis != 1], correction=0)
    mean, count = mean.double(), x.numel() // x.shape[1]
    sums += torch.stack([torch.full_like(mean, count), count * mean, count * (variance.double() + mean * mean)])


def _uncompiled() -> AbstractContextManager[Any]:
    """Run compiled modules as they were written: hooks that came later are not in the compiled code."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
