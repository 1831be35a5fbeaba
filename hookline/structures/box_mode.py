"""The ways to write a box down, and the conversions between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum, unique
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

BoxLike = TypeVar("BoxLike", list, tuple, np.ndarray, Tensor)


@unique
class BoxMode(IntEnum):
    """How the numbers of a box are meant; absolute ones are pixels.

    Attributes:
        XYXY_ABS: (x0, y0, x1, y1).
        XYWH_ABS: (x0, y0, width, height).
        XYXY_REL: (x0, y0, x1, y1) as fractions of the image's width and height.
        XYWH_REL: (x0, y0, width, height) as fractions of the image's width and height.
        XYWHA_ABS: (centre x, centre y, width, height, angle in degrees, counter-clockwise).
    """

    XYXY_ABS = 0
    XYWH_ABS = 1
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4

    @staticmethod
    def convert(box: BoxLike, from_mode: BoxMode, to_mode: BoxMode) -> BoxLike:
        """Write boxes in another mode.

        Args:
            box: one box as a list or tuple of 4 numbers (5 for ``XYWHA_ABS``), or an array or tensor (..., 4 or 5).
            from_mode: mode of ``box``.
            to_mode: mode of the result.

        Returns:
            The boxes in a container of the same type (``box`` itself where both modes are equal).

        Raises:
            NotImplementedError: there is no conversion between these modes; relative boxes need an image size.
            ValueError: ``box`` has not the number of coordinates that ``from_mode`` asks for.
        """
        if from_mode == to_mode:
            return box
        conversion = _CONVERSIONS.get((from_mode, to_mode))
        if conversion is None:
            raise NotImplementedError(_no_conversion(from_mode, to_mode))
        size = len(box) if isinstance(box, (list, tuple)) else box.shape[-1]
        if size != _num_coordinates(from_mode):
            raise ValueError(
                f"a {BoxMode(from_mode).name} box has {_num_coordinates(from_mode)} coordinates, got {size}"
            )
        if isinstance(box, Tensor):
            return torch.stack(tuple(conversion(*box.unbind(-1))), dim=-1)
        if isinstance(box, np.ndarray):
            return np.stack(conversion(*np.moveaxis(box, -1, 0)), axis=-1)
        return type(box)(conversion(*box))


def _num_coordinates(mode: BoxMode) -> int:
    return 5 if mode == BoxMode.XYWHA_ABS else 4


def _no_conversion(from_mode: BoxMode, to_mode: BoxMode) -> str:
    known = ", ".join(f"{a.name} to {b.name}" for a, b in _CONVERSIONS)
    names = [BoxMode(mode).name for mode in (from_mode, to_mode)]
    return f"cannot convert boxes from {names[0]} to {names[1]}; known: {known}"


def _corner_to_size(x0, y0, x1, y1):  # type: ignore[no-untyped-def]  # numbers, arrays or tensors alike
    return x0, y0, x1 - x0, y1 - y0


def _size_to_corner(x0, y0, width, height):  # type: ignore[no-untyped-def]
    return x0, y0, x0 + width, y0 + height


def _size_to_rotated(x0, y0, width, height):  # type: ignore[no-untyped-def]
    return x0 + width / 2, y0 + height / 2, width, height, width * 0


def _rotated_to_corner(x, y, width, height, angle):  # type: ignore[no-untyped-def]
    """The smallest upright box around the rotated one."""
    library = torch if isinstance(angle, Tensor) else np if isinstance(angle, np.ndarray) else math
    radians = angle * (math.pi / 180)
    cosine, sine = abs(library.cos(radians)), abs(library.sin(radians))
    half_width = (cosine * width + sine * height) / 2
    half_height = (cosine * height + sine * width) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


_CONVERSIONS: dict[tuple[BoxMode, BoxMode], Callable[..., Sequence]] = {
    (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS): _corner_to_size,
    (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS): _size_to_corner,
    (BoxMode.XYXY_REL, BoxMode.XYWH_REL): _corner_to_size,
    (BoxMode.XYWH_REL, BoxMode.XYXY_REL): _size_to_corner,
    (BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS): _size_to_rotated,
    (BoxMode.XYXY_ABS, BoxMode.XYWHA_ABS): lambda *box: _size_to_rotated(*_corner_to_size(*box)),
    (BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS): _rotated_to_corner,
    (BoxMode.XYWHA_ABS, BoxMode.XYWH_ABS): lambda *box: _corner_to_size(*_rotated_to_corner(*box)),
}
