"""Run a model over a data set and evaluate what it says."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import nn

from hookline.evaluation.evaluator import DatasetEvaluator, DatasetEvaluators
from hookline.evaluation.interruption import StopWatcher
from hookline.evaluation.progress import InferenceProgress

__all__ = ["inference_context", "inference_on_dataset"]

logger = logging.getLogger(__name__)

_CALLBACKS = ("on_start", "before_inference", "after_inference", "on_end")


def inference_on_dataset(
    model: Callable[[list[dict]], list[dict]],
    data_loader: Iterable[list[dict]],
    evaluator: DatasetEvaluator | Sequence[DatasetEvaluator] | None,
    callbacks: Mapping[str, Callable[[], Any]] | None = None,
    *,
    should_stop: Callable[[], bool] | None = None,
) -> OrderedDict[str, Any]:
    """Feed the data set to the model and its outputs to the evaluator; every rank calls it with its own share.

    A module is in eval mode and gathers no gradients meanwhile; afterwards each of its parts is in the mode it was in
    before. On a terminal a progress bar runs; elsewhere a line is logged every few seconds, with speed and remaining
    time.

    Args:
        model: maps a list of samples to a list of predictions; a module or any callable.
        data_loader: yields the batches of this rank's share, once.
        evaluator: one, or several to be fed together; without one the model's speed is all that is learnt.
        callbacks: called without arguments ``on_start``, before the first batch; ``before_inference`` and
            ``after_inference`` of the model on a batch; and ``on_end``, after the last one.
        should_stop: asked before each batch, such as ``SuspendCheckpointer.requested``. When it says yes on any rank,
            all ranks leave by :class:`~hookline.evaluation.EvaluationInterrupted` without results. It must be given
            on all ranks or on none.

    Returns:
        ``{task: {metric: value}}``; empty on all ranks but the first.

    Raises:
        ValueError: a callback of an unknown name.
    """
    callbacks = dict(callbacks or {})
    if unknown := callbacks.keys() - set(_CALLBACKS):
        raise ValueError(f"unknown callback {sorted(unknown)[0]!r}; known: {', '.join(_CALLBACKS)}")
    if not isinstance(evaluator, DatasetEvaluator):
        evaluator = DatasetEvaluators(evaluator or [])
    evaluator.reset()
    watcher = StopWatcher(should_stop) if should_stop is not None else None
    with contextlib.ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(inference_context(model))
        stack.enter_context(torch.no_grad())
        progress = stack.enter_context(InferenceProgress(_length(data_loader)))
        _run(model, data_loader, evaluator, callbacks, progress, watcher)
    if watcher is not None:
        watcher.agree()
    results = evaluator.evaluate()
    return OrderedDict(results or {})


def _run(
    model: Callable[[list[dict]], list[dict]],
    data_loader: Iterable[list[dict]],
    evaluator: DatasetEvaluator,
    callbacks: dict[str, Callable[[], Any]],
    progress: InferenceProgress,
    watcher: StopWatcher | None,
) -> None:
    call = {name: callbacks.get(name, lambda: None) for name in _CALLBACKS}
    call["on_start"]()
    start = time.perf_counter()
    for inputs in data_loader:
        if watcher is not None and watcher.stopped():
            break
        loaded = time.perf_counter()
        call["before_inference"]()
        outputs = model(inputs)
        # the evaluator would wait for the GPU anyway; waiting here tells the model's time from its own
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        call["after_inference"]()
        computed = time.perf_counter()
        evaluator.process(inputs, outputs)
        end = time.perf_counter()
        progress.step(loaded - start, computed - loaded, end - computed)
        start = end
    call["on_end"]()


def _length(data_loader: Iterable[list[dict]]) -> int | None:
    return len(data_loader) if isinstance(data_loader, Sized) else None


@contextlib.contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for a block, then each of its modules back into the mode it was in.

    Args:
        model: some of its modules may be in training mode and others, frozen ones for instance, not.

    Yields:
        Nothing.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            # train() would reach into the children, whose own mode may be another
            module.training = training
