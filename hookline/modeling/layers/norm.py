"""Normalisation layers, and the names by which recipes ask for them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

from hookline.modeling._checks import check_choice

BatchNorm2d = nn.BatchNorm2d

NormSpec = str | Callable[[int], nn.Module] | None


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics and affine parameters are constants.

    `y = (x - running_mean) / sqrt(running_var + eps) * weight + bias`. All four are buffers with the keys of
    `torch.nn.BatchNorm2d`, so checkpoints of either load into the other. A fresh layer is the identity, and so is
    one whose checkpoint holds an affine part only.

    As the `norm` of `Conv2d` the layer never runs: the convolution multiplies it into its own weight and bias, which
    saves a pass over the activations.

    Args:
        num_features: Number of channels.
        eps: Added to the variance.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features) - eps)

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Give the weight and bias of a convolution that does this layer's work too.

        Args:
            weight: (C_out, ...) weight of the convolution before this layer.
            bias: (C_out,) its bias, if it has one.

        Returns:
            Weight and bias of the same shapes and types; gradients reach the arguments.
        """
        scale = self.weight.float() * (self.running_var.float() + self.eps).rsqrt()
        centre = self.running_mean if bias is None else self.running_mean - bias
        shift = self.bias - centre * scale
        scaled = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        return scaled.to(weight.dtype), shift.to(weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) with the constants."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)

    def extra_repr(self) -> str:
        """Return what `print(model)` shows of this layer."""
        return f"num_features={self.num_features}, eps={self.eps}"

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, *rest: Any
    ) -> None:
        # A counter of trainable batch norm that means nothing here.
        state_dict.pop(prefix + "num_batches_tracked", None)
        if prefix + "weight" in state_dict:
            # Old zoo files have the statistics merged into the affine part.
            state_dict.setdefault(prefix + "running_mean", torch.zeros_like(self.running_mean))
            state_dict.setdefault(prefix + "running_var", torch.ones_like(self.running_var) - self.eps)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *rest)

    @classmethod
    def from_batch_norm(cls, norm: nn.Module) -> "FrozenBatchNorm2d":
        """Freeze one batch norm layer at its current state.

        Args:
            norm: A `BatchNorm2d` or `SyncBatchNorm`, with or without affine parameters.

        Returns:
            A new layer on the same device.
        """
        frozen = cls(norm.num_features, norm.eps)  # type: ignore[arg-type]
        frozen.to(next((tensor.device for tensor in norm.state_dict().values()), None))
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(norm, name)
            if value is not None:
                getattr(frozen, name).copy_(value.detach())
        return frozen.train(norm.training)

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Freeze every batch norm layer inside a module.

        Args:
            module: Searched recursively; changed in place unless it is itself a batch norm.

        Returns:
            The module, or its frozen replacement.
        """
        if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            return cls.from_batch_norm(module)
        for name, child in module.named_children():
            converted = cls.convert_frozen_batchnorm(child)
            if converted is not child:
                setattr(module, name, converted)
        return module


class NaiveSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm with the statistics of all ranks, made of plain differentiable collectives.

    It runs on every device and backend. Ranks may hold batches of different sizes, or empty ones: each counts by its
    number of elements.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W) with the statistics over all ranks' batches."""
        if self.training and _has_peers():
            return _synchronised_batch_norm(self, input)
        return super().forward(input)


class SyncBatchNorm(nn.SyncBatchNorm):
    """`torch.nn.SyncBatchNorm` that runs on the CPU too, as `NaiveSyncBatchNorm`."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W) with the statistics over all ranks' batches."""
        if self.training and input.device.type == "cpu" and _has_peers():
            return _synchronised_batch_norm(self, input)
        return super().forward(input)


def _has_peers() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _synchronised_batch_norm(norm: nn.BatchNorm2d | nn.SyncBatchNorm, input: Tensor) -> Tensor:
    """Normalise with the mean and variance over all ranks, and follow them in the running statistics."""
    x = input.float()
    count = x.new_full((1,), x.numel() // max(x.shape[1], 1))
    totals = all_reduce(torch.cat([x.sum((0, 2, 3)), (x * x).sum((0, 2, 3)), count]))
    count = totals[-1].detach().clamp(min=1)
    mean, square = (totals[:-1] / count).chunk(2)
    var = (square - mean * mean).clamp(min=0)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked += 1
        step: Any = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
        unbiased = var.detach() * count / (count - 1).clamp(min=1)
        norm.running_mean += step * (mean.detach() - norm.running_mean)
        norm.running_var += step * (unbiased - norm.running_var)
    scale = (var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -mean * scale if norm.bias is None else norm.bias - mean * scale
    return (x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).to(input.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation over the channels of each cell of a (B, C, H, W) map.

    Args:
        num_features: Number of channels.
        eps: Added to the variance.

    Source: Ba, Kiros, Hinton, "Layer Normalization", 2016; over channels only as in ConvNeXt and ViTDet.
    """

    def __init__(self, num_features: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over dimension 1."""
        cells = x.permute(0, 2, 3, 1)
        return F.layer_norm(cells, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": SyncBatchNorm,
    "nnSyncBN": nn.SyncBatchNorm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": partial(nn.GroupNorm, 32),
    "LN": LayerNorm,
}


def get_norm(norm: NormSpec, out_channels: int) -> nn.Module | None:
    """Build the normalisation layer that a recipe names.

    Args:
        norm: A key of `NORMS`, a callable from the number of channels to a module, or "" or None for no layer.
        out_channels: Number of channels to normalise.

    Returns:
        The layer, or None.
    """
    if norm is None or norm == "":
        return None
    if isinstance(norm, str):
        check_choice("norm", norm, NORMS)
        return NORMS[norm](out_channels)
    return norm(out_channels)
