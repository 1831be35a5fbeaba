"""Stand-ins for model parts, for the tests of recipes."""

import enum
import functools
from dataclasses import dataclass
from typing import NamedTuple


class Part:
    """Remembers its arguments and compares by them."""

    def __init__(self, **kwargs):
        self.kwargs = kwargs

    def __eq__(self, other):
        return type(self) is type(other) and self.kwargs == other.kwargs

    __hash__ = None

    def __repr__(self):
        return f"{type(self).__name__}({self.kwargs})"


class Stem(Part):
    def __init__(self, in_channels=3, out_channels=64):
        super().__init__(in_channels=in_channels, out_channels=out_channels)


class ResNet(Part):
    def __init__(self, stem, stages, out_features=None):
        super().__init__(stem=stem, stages=stages, out_features=out_features)

    @staticmethod
    def make_default_stages(depth, norm="BN"):
        return ["stages", depth, norm]

    @classmethod
    def of_depth(cls, depth):
        return cls(None, cls.make_default_stages(depth))


class FPN(Part):
    def __init__(self, bottom_up, in_features, out_channels, norm="", top_block=None):
        super().__init__(
            bottom_up=bottom_up, in_features=in_features, out_channels=out_channels, norm=norm, top_block=top_block
        )


class Heads(Part):
    pass


class CascadeHeads(Part):
    pass


class Detector(Part):
    def __init__(self, backbone, roi_heads, pixel_mean):
        super().__init__(backbone=backbone, roi_heads=roi_heads, pixel_mean=pixel_mean)


class Broken(Part):
    def __init__(self, size):
        raise RuntimeError(f"no memory for {size}")


class Careless(Part):
    def __init__(self, size):
        raise TypeError("deep inside")


@dataclass
class Spec:
    channels: int | None = None
    height: int | None = None


class Pair(NamedTuple):
    first: int
    second: int = 2


class Mode(enum.Enum):
    FAST = 1
    EXACT = 2


class _Catalog:
    def get(self, name):
        return f"metadata of {name}"


Catalog = _Catalog()


def scale(value, factor=1.0):
    return value * factor


def adds_an_argument(function):
    """Decorate a function so that it takes one argument more than its signature tells."""

    @functools.wraps(function)
    def wrapper(*args, extra=None, **kwargs):
        return function(*args, **kwargs), extra

    return wrapper


@adds_an_argument
def decorated(value):
    return value


def make_scaler(factor):
    return functools.partial(scale, factor=factor)
