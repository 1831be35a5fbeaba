"""Layer-wise decay of the learning rate: the nearer a layer is to the image, the less it is changed.

Each function gives the factor of a parameter by its name, for ``lr_factor_func`` of
:func:`~hookline.engine.optimizer.get_default_optimizer_params`.
"""

from __future__ import annotations

import re

__all__ = ["get_resnet_lr_decay_rate", "get_vit_lr_decay_rate"]

_BLOCK = re.compile(r"\.blocks\.(\d+)\.")
_STAGE = re.compile(r"(?:^|\.)(?:stem|res(\d+))\.")


def get_vit_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_layers: int = 12) -> float:
    """Give the factor of a parameter of a model with a ViT backbone.

    With ``L`` layers it is ``lr_decay_rate ** (L + 1 - layer)``, where the embeddings of patches and positions are
    layer 0, block ``i`` is layer ``i + 1``, and everything else, also convolutions beside a block's attention
    (``.residual.``), is layer ``L + 1`` with the factor 1.

    Args:
        name: full name in the model, such as ``backbone.net.blocks.3.attn.qkv.weight``.
        lr_decay_rate: factor from a layer to the one before it, in (0, 1].
        num_layers: blocks of the backbone.

    Raises:
        ValueError: if the rate is not in (0, 1], or the model has more blocks than ``num_layers``.

    Source: Clark et al., "ELECTRA", section 3.1; Bao et al., "BEiT"; Li et al., "Exploring plain vision transformer
    backbones for object detection", appendix.
    """
    _check_rate(lr_decay_rate)
    if not name.startswith("backbone"):
        return 1.0
    if ".pos_embed" in name or ".patch_embed" in name:
        return float(lr_decay_rate ** (num_layers + 1))
    block = _BLOCK.search(name)
    if block is None or ".residual." in name:
        return 1.0
    if int(block[1]) >= num_layers:
        raise ValueError(f"num_layers={num_layers}: the model has more blocks than that, see {name}")
    return float(lr_decay_rate ** (num_layers - int(block[1])))


def get_resnet_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_stages: int = 4) -> float:
    """Give the factor of a parameter of a model with a ResNet backbone.

    It is ``lr_decay_rate ** (num_stages + 1 - layer)``, where the stem is layer 0, ``res2`` layer 1 and so on; what
    belongs to no stage, such as the FPN and the heads, has the factor 1. A ``res5`` inside of the heads counts as the
    stage that it is.

    Args:
        name: full name in the model, such as ``backbone.bottom_up.res4.0.conv1.weight``.
        lr_decay_rate: factor from a stage to the one before it, in (0, 1].
        num_stages: stages behind the stem, ``res2`` to ``res5`` by default.

    Raises:
        ValueError: if the rate is not in (0, 1], or the model has more stages than ``num_stages``.
    """
    _check_rate(lr_decay_rate)
    stage = _STAGE.search(name)
    if stage is None:
        return 1.0
    layer = int(stage[1]) - 1 if stage[1] else 0
    if layer > num_stages:
        raise ValueError(f"num_stages={num_stages}: the model has more stages than that, see {name}")
    return float(lr_decay_rate ** (num_stages + 1 - layer))


def _check_rate(lr_decay_rate: float) -> None:
    if not 0.0 < lr_decay_rate <= 1.0:
        raise ValueError(f"lr_decay_rate={lr_decay_rate}: expected a number in (0, 1]")
