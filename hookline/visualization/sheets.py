"""Several pictures in one: contact sheets of a batch, ground truth beside prediction. Axes: C channels, H W pixels."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from hookline.structures import Instances
from hookline.visualization.canvas import Canvas
from hookline.visualization.output import VisImage
from hookline.visualization.visualizer import Visualizer

__all__ = ["draw_batch", "draw_comparison", "draw_sample", "grid", "sample_image"]

_BACKGROUND = (24, 24, 28)
_CAPTION = (235, 235, 235)


def sample_image(sample: dict[str, Any], image_format: str) -> npt.NDArray[np.uint8]:
    """Return a sample's image as (H, W, 3) RGB.

    Args:
        sample: with ``image``, a (C, H, W) tensor in 0..255.
        image_format: order of its channels: "RGB", "BGR" or "L".

    Raises:
        ValueError: if ``image_format`` is none of them or does not fit the number of channels.
    """
    if image_format not in {"RGB", "BGR", "L"}:
        raise ValueError(f"image_format is 'RGB', 'BGR' or 'L', got {image_format!r}")
    image = sample["image"]
    if image.ndim != 3 or image.shape[0] != (1 if image_format == "L" else 3):
        raise ValueError(f"an image in {image_format} does not have the shape {tuple(image.shape)}")
    array = image.detach().cpu().clamp(0, 255).to(torch.uint8).numpy().transpose(1, 2, 0)
    return np.repeat(array, 3, 2) if image_format == "L" else array[:, :, :: -1 if image_format == "BGR" else 1]


def draw_sample(sample: dict[str, Any], image_format: str, metadata: Any = None, scale: float = 1.0) -> VisImage:
    """Draw a mapper's sample, as the model will see it, with its ground truth.

    Args:
        sample: with ``image`` (C, H, W), and ``instances`` with ``gt_*`` fields and ``sem_seg`` where they are there.
        image_format: order of the image's channels: "RGB", "BGR" or "L".
        metadata: see :class:`Visualizer`.
        scale: the picture is that many times larger than the image.
    """
    return Visualizer(sample_image(sample, image_format), metadata, scale).draw_sample(sample)


def draw_batch(
    batch: Sequence[dict[str, Any]], image_format: str, metadata: Any = None, *, max_images: int = 16
) -> VisImage:
    """Draw the samples of a batch as one contact sheet; see :func:`draw_sample`."""
    return grid([draw_sample(sample, image_format, metadata) for sample in batch[:max_images]])


def draw_comparison(
    img_rgb: npt.NDArray[np.uint8],
    record: dict[str, Any] | None,
    predictions: Instances,
    metadata: Any = None,
    scale: float = 1.0,
) -> VisImage:
    """Draw the annotations of an image and, at their right, what a model found in it.

    Args:
        img_rgb: (H, W, 3) uint8 RGB.
        record: in the data sets' standard form; without ``annotations`` (or None) only the predictions are drawn.
        predictions: with ``pred_*`` fields in the image's pixels.
        metadata: see :class:`Visualizer`.
        scale: each picture is that many times larger than the image.
    """
    found = Visualizer(img_rgb, metadata, scale).draw_instance_predictions(predictions)
    if record is None or "annotations" not in record:
        return found
    truth = Visualizer(img_rgb, metadata, scale).draw_dataset_dict(record)
    height = truth.height
    return grid([truth, found], captions=["ground truth", "prediction"], columns=2, cell=(height, truth.width))


def grid(
    images: Sequence[VisImage | npt.NDArray[np.uint8]],
    *,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    cell: tuple[int, int] | None = None,
    padding: int = 6,
) -> VisImage:
    """Arrange pictures of any sizes in rows; each keeps its proportions.

    Args:
        images: pictures, or (H, W, 3) uint8 RGB arrays.
        columns: per row; by default chosen so that the sheet is about 4:3.
        captions: one text under each picture.
        cell: height and width in pixels that pictures are shrunk to fit; by default the largest picture's, at most
            480x640 (of several) so that a sheet stays viewable. Rows are as high as their highest picture.
        padding: pixels between pictures.

    Raises:
        ValueError: if there is no picture, or not one caption per picture.
    """
    if not images:
        raise ValueError("a sheet needs at least one picture")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(images)} pictures have {len(captions)} captions")
    arrays = [image.get_image() if isinstance(image, VisImage) else image for image in images]
    height, width = cell or _cell_size(arrays)
    if columns is None:
        columns = max(round(math.sqrt(len(arrays) * 4 / 3 * height / width)), 1)
    columns = min(columns, len(arrays))
    pictures = [_fitted(array, height, width) for array in arrays]
    line = 24 if captions is not None else 0
    tops = [padding]
    for start in range(0, len(pictures), columns):
        tops.append(tops[-1] + max(picture.height for picture in pictures[start : start + columns]) + line + padding)
    sheet = Canvas(np.full((tops[-1], columns * (width + padding) + padding, 3), _BACKGROUND, np.uint8))
    sheet.font_size = 15
    for i, picture in enumerate(pictures):
        top, bottom = tops[i // columns], tops[i // columns + 1] - padding - line
        left = padding + i % columns * (width + padding)
        place = (left + (width - picture.width) // 2, top + (bottom - top - picture.height) // 2)
        sheet.image.paste(picture, place)
        if captions is not None:
            sheet.text(captions[i], (left, bottom + 2), _CAPTION, _BACKGROUND)
    return VisImage(sheet.image)


def _cell_size(arrays: Sequence[npt.NDArray[np.uint8]]) -> tuple[int, int]:
    height, width = max(a.shape[0] for a in arrays), max(a.shape[1] for a in arrays)
    shrink = min(480 / height, 640 / width, 1.0) if len(arrays) > 1 else 1.0
    return round(height * shrink), round(width * shrink)


def _fitted(array: npt.NDArray[np.uint8], height: int, width: int) -> Image.Image:
    shrink = min(height / array.shape[0], width / array.shape[1], 1.0)
    size = (max(round(array.shape[1] * shrink), 1), max(round(array.shape[0] * shrink), 1))
    image = Image.fromarray(array)
    return image if shrink == 1.0 else image.resize(size, Image.Resampling.LANCZOS)
