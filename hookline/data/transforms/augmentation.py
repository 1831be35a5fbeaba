"""From random policies to transform objects.

An ``Augmentation`` looks at a sample and draws one deterministic ``Transform``; that one object then changes image,
boxes, polygons, keypoints and label maps alike. All draws use numpy's global generator, which the loader seeds for each
sample.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

__all__ = ["AugInput", "Augmentation", "AugmentationList", "apply_augmentations"]


class Augmentation:
    """A policy that draws a transform for each sample.

    Subclasses define ``get_transform``; the names of its arguments are the attributes of the ``AugInput`` it looks at::

        class CropToBoxes(Augmentation):
            def get_transform(self, image, boxes):
                x0, y0 = boxes[:, :2].min(axis=0).astype(int)
                x1, y1 = boxes[:, 2:].max(axis=0).astype(int)
                return CropTransform(x0, y0, x1 - x0, y1 - y0)

    A lone argument of any other name gets the image.
    """

    def get_transform(self, *args: Any) -> Transform:
        """Draw the transform.

        Args:
            args: attributes of the ``AugInput``, chosen by the names that the subclass gives them.

        Raises:
            NotImplementedError: the subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define get_transform")

    def __call__(self, aug_input: AugInput) -> Transform:
        """Draw a transform, apply it to ``aug_input`` in place, and return it.

        Raises:
            TypeError: ``get_transform`` returned no transform.
        """
        transform = self.get_transform(*self._arguments(aug_input))
        if not isinstance(transform, Transform):
            raise TypeError(f"{type(self).__name__}.get_transform returned {type(transform).__name__}, not a Transform")
        aug_input.transform(transform)
        return transform

    def _arguments(self, aug_input: AugInput) -> list[Any]:
        names = _argument_names(type(self).get_transform)
        if len(names) == 1 and not hasattr(aug_input, names[0]):
            names = ("image",)
        missing = [name for name in names if not hasattr(aug_input, name)]
        if missing:
            raise AttributeError(
                f"{type(self).__name__}.get_transform wants {missing[0]!r}, "
                f"but the {type(aug_input).__name__} has only {', '.join(vars(aug_input))}"
            )
        return [getattr(aug_input, name) for name in names]

    def _rand_range(self, low: float = 1.0, high: float | None = None, size: Any = None) -> Any:
        """Draw uniformly from [low, high), or from [0, low) when there is no ``high``."""
        if high is None:
            low, high = 0, low
        return np.random.uniform(low, high, [] if size is None else size)

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({settings})"

    __str__ = __repr__


@lru_cache(maxsize=1024)
def _argument_names(get_transform: Any) -> tuple[str, ...]:
    """Return the names of the arguments after ``self``; reading signatures is slow, so each class is read once.

    Raises:
        TypeError: an argument has no fixed name, or a default.
    """
    if get_transform is Augmentation.get_transform:
        return ()  # which then says what is missing
    names = []
    for name, parameter in list(inspect.signature(get_transform).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.default != parameter.empty:
            raise TypeError(
                f"{get_transform.__qualname__} must name every argument it wants, without defaults and *args, "
                f"but has {parameter}"
            )
        names.append(name)
    return tuple(names)


class AugInput:
    """What augmentations look at and change.

    Args:
        image: (H, W) or (H, W, C); uint8 in [0, 255] or floating point.
        boxes: float (N, 4) absolute XYXY, where an augmentation asks for them.
        sem_seg: integer (H, W).

    Attributes:
        image: as changed so far.
        boxes: as changed so far; not clipped to the image.
        sem_seg: as changed so far.
    """

    def __init__(
        self, image: np.ndarray, *, boxes: np.ndarray | None = None, sem_seg: np.ndarray | None = None
    ) -> None:
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Apply ``tfm`` to everything held, in place."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(self, augmentations: Sequence[Augmentation | Transform]) -> TransformList:
        """Draw and apply ``augmentations`` in order, in place; return what was applied."""
        return AugmentationList(augmentations)(self)


class _Always(Augmentation):
    """A fixed transform among augmentations."""

    def __init__(self, tfm: Transform) -> None:
        self.tfm = tfm

    def get_transform(self, *args: Any) -> Transform:
        return self.tfm

    def _arguments(self, aug_input: AugInput) -> list[Any]:
        return []

    def __repr__(self) -> str:
        return repr(self.tfm)


class AugmentationList(Augmentation):
    """A sequence of augmentations as one.

    Args:
        augs: augmentations or fixed transforms.

    Raises:
        TypeError: one is neither.
    """

    def __init__(self, augs: Sequence[Augmentation | Transform]) -> None:
        super().__init__()
        self.augs = [_as_augmentation(aug) for aug in augs]

    def __call__(self, aug_input: AugInput) -> TransformList:
        """Draw and apply each in turn; every one sees what those before it left."""
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(map(repr, self.augs))}]"

    __str__ = __repr__


def _as_augmentation(aug: Augmentation | Transform) -> Augmentation:
    if isinstance(aug, Augmentation):
        return aug
    if isinstance(aug, Transform):
        return _Always(aug)
    raise TypeError(f"expected an Augmentation or a Transform, got {type(aug).__name__}")


def apply_augmentations(
    augmentations: Sequence[Augmentation | Transform], inputs: AugInput | np.ndarray
) -> tuple[AugInput | np.ndarray, TransformList]:
    """Apply augmentations to an image or an ``AugInput``.

    Args:
        augmentations: applied in order.
        inputs: an image (H, W[, C]), or an ``AugInput``, which is changed in place.

    Returns:
        The changed inputs (an image for an image), and what was applied, ready to be applied to annotations::

            image, transforms = apply_augmentations([Resize(320), RandomFlip()], image)
            boxes = transforms.apply_box(boxes)
    """
    if isinstance(inputs, np.ndarray):
        aug_input = AugInput(inputs)
        transforms = aug_input.apply_augmentations(augmentations)
        return aug_input.image, transforms
    return inputs, inputs.apply_augmentations(augmentations)
