"""The model on several processes, each of which holds a part of every parameter, gradient and optimizer state.

This is torch's `fully_shard` (FSDP2). The model is divided into units: before a unit runs, its parameters are gathered
from all ranks, and freed again behind it. What is in no unit of its own belongs to the whole model, whose parameters
are gathered at the beginning of the forward pass.
"""

from __future__ import annotations

import difflib
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from hookline.distributed import cpu_group, get_world_size
from hookline.engine.data_parallel import without_peers
from hookline.engine.shards import is_sharded, local_bytes, take_shard

__all__ = [
    "DEFAULT_UNITS",
    "GATHER_DTYPES",
    "create_fully_sharded_model",
    "is_fully_sharded",
    "last_unit",
    "reshard",
    "unit_names",
]

# Repeated parts by their usual class names: BottleneckBlock, torchvision's Bottleneck, TransformerEncoderLayer
DEFAULT_UNITS = ("*Block", "*Bottleneck", "*Layer")
GATHER_DTYPES = {"bf16": torch.bfloat16}

logger = logging.getLogger(__name__)


def create_fully_sharded_model(
    model: nn.Module,
    device: torch.device | str,
    *,
    units: Sequence[str] | None = None,
    reshard_after_forward: bool = True,
    gather_dtype: str | None = None,
    cpu_offload: bool = False,
    reduce_every_batch: bool = False,
    find_unused_parameters: bool = False,
) -> nn.Module:
    """Shard a model over all ranks, in place; the weights of rank 0 count.

    Make the optimizer afterwards. The state dict then holds sharded tensors; loading accepts whole ones too. A single
    process gets the model on its device, else as it is, but for SyncBN: see
    :func:`~hookline.engine.data_parallel.without_peers`.

    Args:
        model: whole, on any device; on the CPU, only one unit at a time comes to the device as a whole.
        device: where to train.
        units: names of classes or modules, with ``*`` and ``?``, that become units; by default :data:`DEFAULT_UNITS`.
            A unit must run in every step on every rank.
        reshard_after_forward: free a unit's parameters behind its forward pass and gather them again for backward;
            else they stay in between.
        gather_dtype: ``bf16`` to gather parameters in half the bytes; gradients are reduced in float32.
        cpu_offload: keep parameters, gradients and optimizer state in CPU memory.
        reduce_every_batch: with accumulation, reduce the gradients of every batch; else each rank keeps whole ones
            until the last batch of the step.
        find_unused_parameters: parameters without a gradient get zeros, so ranks may differ in them.

    Returns:
        The same model.

    Raises:
        ValueError: if a name fits no module, a parameter is shared between units, the model has batch norms that
            ``gather_dtype`` would break, the CPU is to be offloaded to itself, or torch is too old for an option.
    """
    device = torch.device(device)
    if get_world_size() == 1:
        logger.info("Fully sharded over one process: the model stays whole")
        return without_peers(model.to(device))
    names = unit_names(model, units)
    _check_sharing(model, names)
    _check_dtype(model, gather_dtype)
    if cpu_offload and device.type == "cpu":
        raise ValueError("cpu_offload=True, but the run is on the CPU: there is nothing to offload from")
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    whole = local_bytes(model.parameters())
    _send_weights(model)
    _shard(model, names, device, reshard_after_forward, GATHER_DTYPES.get(str(gather_dtype)), cpu_offload)
    _accept_whole_tensors(model)
    model.reduces_every_batch = reduce_every_batch  # type: ignore[assignment]
    model.gathers_in = (device.type, GATHER_DTYPES.get(str(gather_dtype)))  # type: ignore[assignment]
    model.trainable_names = trainable  # type: ignore[assignment]
    model.finds_unused_parameters = find_unused_parameters  # type: ignore[assignment]
    if find_unused_parameters:
        _reduce_zeros(model)
    logger.info(
        f"Fully sharded over {get_world_size()} processes in {len(names) + 1} unit(s): this rank holds "
        f"{local_bytes(model.parameters()) / 2**20:.1f} of {whole / 2**20:.1f} MiB of parameters"
    )
    return model


def is_fully_sharded(model: Any) -> bool:
    """Tell whether a model went through :func:`create_fully_sharded_model` on several ranks."""
    return hasattr(model, "set_requires_gradient_sync")


def last_unit(model: nn.Module) -> str:
    """Return the name of the unit whose forward pass began last on this rank; "" before, and for any other model.

    Where ranks wait for each other for ever, a unit that only some of them ran is the usual cause.

    Args:
        model: any.
    """
    return getattr(model, "last_unit", "")


def reshard(model: nn.Module) -> None:
    """Free the gathered parameters of a fully sharded model; of any other, do nothing.

    Args:
        model: after an evaluation, its outermost parameters are still gathered.
    """
    for module in model.modules():
        if is_fully_sharded(module):
            module.reshard()  # type: ignore[operator]


def unit_names(model: nn.Module, units: Sequence[str] | None = None) -> list[str]:
    """Find the modules that become units.

    Args:
        model: not yet sharded.
        units: names of classes or modules, with ``*`` and ``?``; by default :data:`DEFAULT_UNITS`, of which none needs
            to fit.

    Returns:
        Their names in the model, the inner ones before those around them.

    Raises:
        ValueError: if a name fits no module with parameters; names the nearest.
    """
    candidates = {name: type(module).__name__ for name, module in model.named_modules() if name and _has_own(module)}
    chosen = dict.fromkeys(DEFAULT_UNITS if units is None else units, 0)
    found = []
    for name, kind in candidates.items():
        fitting = [pattern for pattern in chosen if fnmatchcase(kind, pattern) or fnmatchcase(name, pattern)]
        for pattern in fitting:
            chosen[pattern] += 1
        if fitting:
            found.append(name)
    missed = next((pattern for pattern, count in chosen.items() if not count), None)
    if units is not None and missed is not None:
        known = sorted({*candidates.values(), *candidates})
        near = difflib.get_close_matches(missed, known, n=1, cutoff=0.5)
        hint = (
            f"did you mean {near[0]!r}?" if near else f"the classes are {', '.join(sorted(set(candidates.values())))}"
        )
        raise ValueError(f"units: {missed!r} fits no class and no module of the model; {hint}")
    if not found:
        logger.warning("No part of the model becomes a unit of its own: all parameters are gathered at once. Set units")
    return sorted(found, key=lambda name: -name.count("."))


def _has_own(module: nn.Module) -> bool:
    return type(module) not in (nn.ModuleList, nn.ModuleDict) and next(module.parameters(), None) is not None


def _shard(
    model: nn.Module,
    names: list[str],
    device: torch.device,
    reshard_after_forward: bool,
    gather_dtype: torch.dtype | None,
    cpu_offload: bool,
) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (get_world_size(),)),
        # inputs are left to autocast: coordinates must keep their digits
        "mp_policy": MixedPrecisionPolicy(gather_dtype, torch.float32 if gather_dtype else None, None, False),
        "offload_policy": CPUOffloadPolicy(pin_memory=device.type == "cuda") if cpu_offload else OffloadPolicy(),
    }
    for name in names:
        fully_shard(model.get_submodule(name), reshard_after_forward=reshard_after_forward, **options)
    fully_shard(model, **options)
    if device.type == "cpu":
        for module in model.modules():
            if isinstance(module, FSDPModule):  # torch 2.8 asks gloo for the mean of gradients, which gives the sum
                module.set_force_sum_reduction_for_comms(True)
    model.last_unit = ""  # type: ignore[assignment]
    for name in names:  # before the parameters are gathered, for which ranks wait
        model.get_submodule(name).register_forward_pre_hook(partial(_note_unit, model, name), prepend=True)


def _note_unit(model: nn.Module, name: str, *unused: Any) -> None:
    model.last_unit = name  # type: ignore[assignment]


def _send_weights(model: nn.Module) -> None:
    """Give all ranks the parameters and buffers of rank 0."""
    with cpu_group() as group:
        for tensor in (*model.parameters(), *model.buffers()):
            held = tensor.detach().contiguous()
            dist.broadcast(_as_bytes(held), 0, group=group if held.device.type == "cpu" else None)
            if held.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(held)


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)  # not every backend moves every type


def _accept_whole_tensors(model: nn.Module) -> None:
    """Let `load_state_dict` take whole tensors, of which each rank keeps its part.

    It happens in each module for its own parameters, thus also behind modules that rename what they load.
    """
    for module in model.modules():
        if any(is_sharded(parameter) for parameter in module.parameters(recurse=False)):
            module.register_load_state_dict_pre_hook(_cut_own)


def _cut_own(module: nn.Module, state: dict[str, Any], prefix: str, *unused: Any) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        value: Any = state.get(prefix + name)
        is_whole = isinstance(value, torch.Tensor) and not is_sharded(value)
        if is_whole and is_sharded(parameter) and value.shape == parameter.shape:
            state[prefix + name] = take_shard(value.to(parameter.dtype), parameter)


def _reduce_zeros(model: Any) -> None:
    if not hasattr(model, "set_reduce_scatter_unused_params"):
        raise ValueError(
            f"find_unused_parameters=True: torch {torch.__version__} cannot do this for sharded models; connect all "
            "parameters to a loss, or use a newer torch"
        )
    model.set_reduce_scatter_unused_params(True)


def _check_sharing(model: nn.Module, names: list[str]) -> None:
    """Refuse parameters that two units share: one unit would free what the other needs.

    Raises:
        ValueError: naming them.
    """
    owners = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners[parameter].append(name)
    for shared in owners.values():
        if len({_unit_of(name, names) for name in shared}) > 1:
            raise ValueError(
                f"units: the parameters {' and '.join(shared)} are one, but belong to different units; "
                "choose units that hold both, or none"
            )


def _unit_of(parameter: str, names: list[str]) -> str:
    return max((name for name in names if parameter.startswith(f"{name}.")), key=len, default="")


def _check_dtype(model: nn.Module, gather_dtype: str | None) -> None:
    if gather_dtype is None:
        return
    if gather_dtype not in GATHER_DTYPES:
        raise ValueError(f"gather_dtype={gather_dtype!r}: expected None or one of {', '.join(GATHER_DTYPES)}")
    for name, module in _batch_norms(model):
        raise ValueError(
            f"gather_dtype={gather_dtype!r}: {name} is a {type(module).__name__} with weights, which must have the "
            "type of its statistics; leave gather_dtype out, or freeze the norms (FrozenBN)"
        )


def _batch_norms(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.affine and module.track_running_stats:
            yield name, module
