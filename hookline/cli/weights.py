"""The weights that a run starts from or evaluates: whose layout they have, and what becomes of it."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor, nn

from hookline.cli.errors import UsageError
from hookline.engine import Checkpointer
from hookline.modeling.backbone.torchvision_weights import convert_torchvision_resnet

__all__ = ["from_torchvision", "load_for_evaluation"]

logger = logging.getLogger(__name__)


def from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a torchvision ResNet; anything else is given back as it is."""
    if "layer1.0.conv1.weight" not in state:
        return state
    logger.info("These are the weights of a torchvision ResNet: for RGB images and stride_in_1x1=False")
    renamed = convert_torchvision_resnet(state)
    return {name: value for name, value in renamed.items() if not name.startswith("linear.")}


def load_for_evaluation(model: nn.Module, file: str) -> dict[str, Any]:
    """Load all weights of a model; evaluating with a part of them would give numbers that mean nothing.

    Args:
        model: the model.
        file: path or URL of the checkpoint.

    Returns:
        The rest of the file, such as "hooks".

    Raises:
        UsageError: if there is no file to load.
    """
    if not file:
        raise UsageError("--eval-only needs weights: train.init_checkpoint=FILE or --load-from FILE")
    return Checkpointer(model, save_to_disk=False).load(file, checkpointables=[], strict=True)
