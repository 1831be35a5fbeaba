"""Reading of torchvision's ResNet weights."""

import re
from collections.abc import Mapping

from torch import Tensor

_PARTS = (
    (re.compile(r"conv1\."), r"stem.conv1."),
    (re.compile(r"bn1\."), r"stem.conv1.norm."),
    (re.compile(r"fc\."), r"linear."),
    (re.compile(r"layer(?P<stage>[1-4])\.(?P<block>\d+)\.conv(\d)\."), r"res{stage}.{block}.conv\3."),
    (re.compile(r"layer(?P<stage>[1-4])\.(?P<block>\d+)\.bn(\d)\."), r"res{stage}.{block}.conv\3.norm."),
    (re.compile(r"layer(?P<stage>[1-4])\.(?P<block>\d+)\.downsample\.0\."), r"res{stage}.{block}.shortcut."),
    (re.compile(r"layer(?P<stage>[1-4])\.(?P<block>\d+)\.downsample\.1\."), r"res{stage}.{block}.shortcut.norm."),
)


def convert_torchvision_resnet(state_dict: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Rename the weights of a torchvision ResNet or ResNeXt to those of `ResNet`.

    They are meant for bottleneck blocks with `stride_in_1x1=False`, and for RGB images with the mean and standard
    deviation of ImageNet: in the units of uint8 images (123.675, 116.28, 103.53) and (58.395, 57.12, 57.375). The
    counters of batch norm (`num_batches_tracked`) are left out: with a fixed momentum nothing reads them.

    Args:
        state_dict: Of `torchvision.models.resnet18` ... `resnet152`, `resnext*` or `wide_resnet*`.
        prefix: Put before each key, such as "backbone.bottom_up.".

    Returns:
        The same tensors by new keys; the classifier becomes `linear`.

    Raises:
        ValueError: If a key is none of such a network's.
    """
    return {
        prefix + _rename(key): tensor for key, tensor in state_dict.items() if not key.endswith(".num_batches_tracked")
    }


def _rename(key: str) -> str:
    for pattern, template in _PARTS:
        match = pattern.match(key)
        if match:
            named = match.groupdict()
            # torchvision counts stages from 1, the paper (and Detectron2) from 2, the stem being the first.
            stage = {name: str(int(number) + (name == "stage")) for name, number in named.items()}
            return match.expand(template.format(**stage)) + key[match.end() :]
    raise ValueError(f"{key!r} is no key of a torchvision ResNet; expected names like layer1.0.conv1.weight.")
