"""The model on several processes: each has a copy, and after backward all have the mean of the gradients."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import nn

from hookline.distributed import get_rank, get_world_size
from hookline.engine.hook_base import HookBase

__all__ = ["UnusedParameterCheck", "UnusedParameterError", "create_ddp_model", "ddp_options", "without_peers"]

_SHOWN_NAMES = 12
# arguments of DistributedDataParallel that are given here, or are objects that no recipe can hold
_NO_OPTIONS = {"self", "module", "device_ids", "output_device", "process_group", "device_mesh", "mixed_precision"}

_UNSENT = re.compile(r"Parameter indices which did not receive grad for rank \d+:((?: \d+)+)")

logger = logging.getLogger(__name__)


class UnusedParameterError(RuntimeError):
    """Trainable parameters got no gradient, for which the other ranks would wait."""


def create_ddp_model(model: nn.Module, *, fp16_compression: bool = False, **options: Any) -> nn.Module:
    """Wrap the model in DistributedDataParallel when there are several processes.

    A single process gets the model back as it is, but for SyncBN, which becomes BN: see :func:`without_peers`.

    Args:
        model: a model on its device.
        fp16_compression: send gradients in half precision.
        options: further arguments of DistributedDataParallel, such as ``find_unused_parameters``, ``static_graph``.
    """
    if get_world_size() == 1:
        return without_peers(model)
    from torch.nn.parallel import DistributedDataParallel

    first = next(model.parameters())
    settings = _as_torch_names_them({str(key): value for key, value in options.items()})
    wrapped = DistributedDataParallel(model, device_ids=[first.device] if first.is_cuda else None, **settings)
    if fp16_compression:
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

        wrapped.register_comm_hook(state=None, hook=fp16_compress_hook)
    logger.info(f"Data parallel over {get_world_size()} processes, fp16_compression={fp16_compression}, {settings}")
    return wrapped


def _as_torch_names_them(settings: dict[str, Any]) -> dict[str, Any]:
    """Give Detectron2's ``broadcast_buffers`` the name that torch 2.15 gave it, where torch has that."""
    if "broadcast_buffers" in settings and "forward_sync_buffers" in ddp_options():
        settings.setdefault("forward_sync_buffers", settings.pop("broadcast_buffers"))
    return settings


@cache
def ddp_options() -> tuple[str, ...]:
    """Name the keyword arguments that :func:`create_ddp_model` takes besides the model."""
    from torch.nn.parallel import DistributedDataParallel

    known = inspect.signature(DistributedDataParallel.__init__).parameters
    return ("fp16_compression", *(name for name in known if name not in _NO_OPTIONS))


def without_peers(model: nn.Module) -> nn.Module:
    """Turn each SyncBN into the BN that it amounts to in a single process.

    Parameters and buffers stay the same objects, so an optimizer made before goes on with them.

    Args:
        model: changed in place, unless it is itself a SyncBN.

    Returns:
        The model.
    """
    count = sum(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    if not count:
        return model
    logger.info(f"SyncBN becomes BN in a single process: {count} layer(s)")
    return _with_plain_norms(model)


def _with_plain_norms(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.SyncBatchNorm):
        return _plain_norm(module)
    for name, child in module.named_children():
        plain = _with_plain_norms(child)
        if plain is not child:
            setattr(module, name, plain)
    return module


def _plain_norm(sync: nn.SyncBatchNorm) -> nn.BatchNorm2d:
    with torch.device("meta"):  # its tensors are replaced at once
        norm = nn.BatchNorm2d(sync.num_features, sync.eps, sync.momentum, sync.affine, sync.track_running_stats)
    norm._parameters.update(sync._parameters)
    norm._buffers.update(sync._buffers)
    return norm.train(sync.training)


class UnusedParameterCheck(HookBase):
    """Stops a run on several processes where a parameter got no gradient, and names it.

    The rank would never send that gradient, for which the others wait until their time is up. Where a step has several
    batches, gradients are sent with the last one, so that one counts. Nothing is checked where the model was told to
    look for unused parameters itself, nor in a single process. Of a fully sharded model the check comes before the
    backward pass, in which ranks that differ would crash.
    """

    def __init__(self) -> None:
        self._trainable: list[tuple[str, nn.Parameter]] = []
        self._accumulates = False
        self._graph_check: Any = None

    def before_train(self) -> None:
        """Note the parameters that wait for a gradient."""
        model: Any = self.trainer.model
        if hasattr(model, "finds_unused_parameters"):
            from hookline.engine.unused_parameters import GraphCheck

            self._graph_check = None if model.finds_unused_parameters else GraphCheck(model, self._refuse)
            return
        waits = hasattr(model, "find_unused_parameters") and not (model.find_unused_parameters or model.static_graph)
        self._trainable = list(_reduced(model)) if waits else []
        self._accumulates = waits and getattr(self.trainer, "accumulate", 1) > 1

    def after_backward(self) -> None:
        """Look whether each has one.

        Raises:
            UnusedParameterError: if one has not; names it and the rank.
        """
        if self._accumulates and (missing := _unsent(self.trainer.model, self._trainable)):
            raise UnusedParameterError(self._message(missing))  # though an earlier batch may have left gradients
        for _, parameter in self._trainable:
            if parameter.grad is None:
                raise UnusedParameterError(self._message([n for n, p in self._trainable if p.grad is None]))

    def after_train(self) -> None:
        """Look no more."""
        self._trainable, self._accumulates = [], False
        if self._graph_check is not None:
            self._graph_check.remove()
            self._graph_check = None

    def _refuse(self, names: list[str]) -> None:
        raise UnusedParameterError(self._message(names, "train.fsdp.find_unused_parameters=true"))

    def _message(self, names: list[str], setting: str = "train.ddp.find_unused_parameters=true") -> str:
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        batch = " in the last batch of the step" if self._accumulates else ""
        return (
            f"rank {get_rank()}, iteration {self.trainer.iter}: {len(names)} parameter(s) got no gradient{batch}, so "
            f"there is nothing to send for them: {', '.join(names[:_SHOWN_NAMES])}{more}. Connect them to a loss (also "
            "where a batch has no objects: loss = 0 * output.sum()), freeze them by requires_grad=False, or "
            f"set {setting}"
        )


def _reduced(wrapped: Any) -> Iterator[tuple[str, nn.Parameter]]:
    ignored = wrapped.parameters_to_ignore
    for name, parameter in wrapped.module.named_parameters():
        if parameter.requires_grad and name not in ignored:
            yield name, parameter


def _unsent(wrapped: Any, reduced: list[tuple[str, nn.Parameter]]) -> list[str]:
    """Name the parameters whose gradients the last backward pass did not send, though it should send all.

    Whether there are any is known without looking at the parameters.

    Args:
        wrapped: in DistributedDataParallel.
        reduced: its parameters with their names, in its order.

    Raises:
        RuntimeError: torch's own, if it knows other parameters than those.
    """
    try:
        wrapped._check_reducer_finalized()
    except RuntimeError as error:
        found = _UNSENT.search(str(error))
        if found is None or wrapped._get_ddp_logging_data()["num_parameter_tensors"] != len(reduced):
            raise
        return [reduced[int(index)][0] for index in found[1].split()]
    return []
