"""Initial weights, by the names that Caffe2 and Detectron2 gave them."""

from typing import Any

from torch import nn


def c2_msra_fill(module: Any) -> None:
    """Draw the weight from a normal distribution that keeps the variance of gradients through ReLU; bias 0.

    `std = sqrt(2 / fan_out)`.

    Args:
        module: A convolution, transposed convolution or linear layer.

    Source: He et al., "Delving Deep into Rectifiers", 2015, equation 14.
    """
    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def c2_xavier_fill(module: Any) -> None:
    """Draw the weight from a uniform distribution that keeps the variance of activations; bias 0.

    `bound = sqrt(3 / fan_in)`.

    Args:
        module: A convolution or linear layer.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010, with
    the fan-in only, as Caffe2 has it.
    """
    nn.init.kaiming_uniform_(module.weight, a=1)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
