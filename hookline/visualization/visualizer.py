"""Draw objects over an image: what annotators marked, what the mapper made of it, what a model found.

Axes: N objects, K keypoints, H W pixels.
"""

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from hookline.io import PathManager
from hookline.structures import BoxMode, Instances
from hookline.visualization.canvas import Canvas
from hookline.visualization.colormap import Color, class_color, parse_color, readable_on
from hookline.visualization.labels import Rectangle, place_label
from hookline.visualization.naming import attribute, label_texts, object_colors, pick_color
from hookline.visualization.output import VisImage
from hookline.visualization.shapes import Shape, boxes_of, keypoints_of, shape_area, shape_bounds, shapes_of
from hookline.visualization.skeleton import draw_keypoints

__all__ = ["ColorMode", "Visualizer"]


class ColorMode(enum.Enum):
    """How objects are coloured."""

    IMAGE = 0
    """Each class in its colour, each object in its own shade of it."""
    SEGMENTATION = 1
    """All objects of a class in exactly the class's colour."""
    IMAGE_BW = 2
    """Like IMAGE, and what no mask covers in grey."""


class Visualizer:
    """Draws on a copy of one image; every drawing method adds to it and returns :attr:`output`.

    Args:
        img_rgb: (H, W, 3) RGB in 0..255.
        metadata: any object that may have ``thing_classes``, ``thing_colors`` (RGB in 0..255), ``keypoint_names``,
            ``keypoint_connection_rules`` (a list of (name, name, RGB)), ``stuff_classes`` and ``stuff_colors``.
        scale: the picture is that many times larger than the image.
        instance_mode: how to colour objects.

    Raises:
        ValueError: if ``img_rgb`` is no RGB image or ``scale`` not positive.
    """

    def __init__(
        self,
        img_rgb: npt.ArrayLike | torch.Tensor,
        metadata: Any = None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
    ) -> None:
        image = np.asarray(img_rgb)
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"an image to draw on is (H, W, 3) RGB, got shape {image.shape}")
        if not scale > 0:
            raise ValueError(f"scale is a positive number, got {scale!r}")
        self.image_size: tuple[int, int] = (image.shape[0], image.shape[1])
        self.metadata = metadata
        self.instance_mode = instance_mode
        self._canvas = Canvas(_resized(np.clip(image, 0, 255).astype(np.uint8), scale))
        height, width = self._canvas.size
        self._scale = np.array([width / image.shape[1], height / image.shape[0]])  # of x and y, after rounding
        self._labels: list[Rectangle] = []

    @property
    def output(self) -> VisImage:
        """The picture so far."""
        return VisImage(self._canvas.image)

    def get_output(self) -> VisImage:
        """Return the picture so far, like :attr:`output`."""
        return self.output

    def draw_instance_predictions(self, predictions: Instances) -> VisImage:
        """Draw a model's ``pred_boxes``, ``pred_classes``, ``scores``, ``pred_masks`` and ``pred_keypoints``.

        Any of them may be absent. Boxes are drawn where there is no mask, whose outline says more.
        """
        fields = predictions.get_fields()
        classes = _plain(fields.get("pred_classes"))
        return self.overlay_instances(
            boxes=fields.get("pred_boxes"),
            masks=fields.get("pred_masks"),
            keypoints=fields.get("pred_keypoints"),
            labels=label_texts(classes, self.metadata, scores=_plain(fields.get("scores"))),
            assigned_colors=self._colors(classes),
        )

    def draw_dataset_dict(self, dic: dict[str, Any]) -> VisImage:
        """Draw the annotations of a record in the data sets' standard form, and its ``sem_seg_file_name``."""
        annotations = dic.get("annotations") or []
        if dic.get("sem_seg_file_name"):
            with PathManager.open(dic["sem_seg_file_name"], "rb") as file, Image.open(file) as label_map:
                self.draw_sem_seg(np.asarray(label_map))
        classes = [int(a["category_id"]) for a in annotations]
        boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations if "bbox" in a]
        return self.overlay_instances(
            boxes=boxes if len(boxes) == len(annotations) else None,
            masks=[a.get("segmentation") or [] for a in annotations],
            keypoints=_stacked_keypoints(annotations),
            labels=label_texts(classes, self.metadata, crowd=[bool(a.get("iscrowd")) for a in annotations]),
            assigned_colors=self._colors(classes),
        )

    def draw_sample(self, sample: dict[str, Any]) -> VisImage:
        """Draw the ground truth of a mapper's sample: ``sem_seg`` and the ``gt_*`` fields of ``instances``.

        Boxes are drawn beside masks: they show whether the transforms moved both alike. The image drawn on must be the
        sample's own (:func:`hookline.visualization.draw_sample` takes care of that).

        Raises:
            ValueError: if the sample's image has another size than the one drawn on.
        """
        size = tuple(sample["image"].shape[1:])
        if size != self.image_size:
            raise ValueError(f"the sample's image has the size {size}, the image drawn on {self.image_size}")
        if sample.get("sem_seg") is not None:
            self.draw_sem_seg(sample["sem_seg"])
        if sample.get("instances") is None:
            return self.output
        fields = sample["instances"].get_fields()
        classes = _plain(fields.get("gt_classes"))
        return self.overlay_instances(
            boxes=fields.get("gt_boxes"),
            masks=fields.get("gt_masks"),
            keypoints=fields.get("gt_keypoints"),
            labels=label_texts(classes, self.metadata),
            assigned_colors=self._colors(classes),
            draw_boxes=True,
        )

    def draw_sem_seg(self, sem_seg: npt.ArrayLike | torch.Tensor, alpha: float = 0.5) -> VisImage:
        """Colour the pixels of a label map and name each region once.

        Args:
            sem_seg: (H, W) integers; 255 and negative values (void) and values that ``metadata.stuff_classes`` does
                not name stay uncoloured.
            alpha: opacity, 0..1.
        """
        labels = np.asarray(sem_seg)
        names = attribute(self.metadata, "stuff_classes")
        for label in np.unique(labels).tolist():
            if not 0 <= label < (len(names) if names else 255):
                continue
            color = pick_color(label, self.metadata, "stuff_colors")
            self._canvas.mask(labels == label, color, alpha)
            if names:
                self._write(str(names[label]), shape_bounds(labels == label), color)
        return self.output

    def overlay_instances(
        self,
        *,
        boxes: Any = None,
        labels: Sequence[str] | None = None,
        masks: Any = None,
        keypoints: Any = None,
        assigned_colors: Sequence[Any] | None = None,
        alpha: float = 0.4,
        draw_boxes: bool | None = None,
    ) -> VisImage:
        """Draw N objects, the large ones first so that the small ones stay visible.

        Arguments that tell of different numbers of objects are refused with a ``ValueError``.

        Args:
            boxes: absolute XYXY boxes (N, 4), or ``Boxes``.
            labels: N texts.
            masks: N masks in any form that :func:`hookline.visualization.shapes.shapes_of` takes.
            keypoints: (N, K, 3) of x, y and visibility or score, or ``Keypoints``.
            assigned_colors: N colours; by default every object gets one of its own.
            alpha: opacity of mask fillings, 0..1.
            draw_boxes: whether boxes are drawn as lines; by default where an object has no mask.
        """
        rows = boxes_of(boxes) if boxes is not None else None
        shapes = shapes_of(masks, self.image_size) if masks is not None else None
        points = keypoints_of(keypoints) if keypoints is not None else None
        num = _common_length(boxes=rows, labels=labels, masks=shapes, keypoints=points, assigned_colors=assigned_colors)
        colors = list(map(parse_color, assigned_colors)) if assigned_colors else [class_color(i) for i in range(num)]
        outlines = rows if rows is not None else np.array([_around(shapes, points, i) for i in range(num)])
        masked = [shapes is not None and shape_area(shape) > 0 for shape in shapes or [[]] * num]
        if self.instance_mode is ColorMode.IMAGE_BW and shapes is not None:
            self._grey_except(shapes)
        for i in sorted(range(num), key=lambda i: -_extent(outlines[i])):
            if shapes is not None:
                self._draw_shape(shapes[i], colors[i], alpha)
            if rows is not None and (draw_boxes or (draw_boxes is None and not masked[i])):
                self._draw_box(rows[i], colors[i])
            if points is not None:
                placed = np.concatenate([points[i][:, :2] * self._scale, points[i][:, 2:]], 1)
                extent = _extent(outlines[i]) * float(self._scale.mean())
                draw_keypoints(self._canvas, placed, colors[i], self.metadata, extent=extent)
        for text, outline, color in zip(labels or (), outlines, colors, strict=False):
            self._write(text, outline, color)
        return self.output

    def _colors(self, classes: Sequence[int] | None) -> list[Color] | None:
        return object_colors(classes, self.metadata, shades=self.instance_mode is not ColorMode.SEGMENTATION)

    def _draw_box(self, box: npt.NDArray[np.float64], color: Color) -> None:
        x0, y0, x1, y1 = box * np.tile(self._scale, 2)
        self._canvas.outline(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), color)

    def _draw_shape(self, shape: Shape, color: Color, alpha: float) -> None:
        if isinstance(shape, np.ndarray):
            self._canvas.mask(shape, color, alpha, outline=color)
            return
        polygons = [polygon * self._scale for polygon in shape]
        self._canvas.fill(polygons, color, alpha)
        for polygon in polygons:
            self._canvas.outline(polygon, color)

    def _grey_except(self, shapes: Sequence[Shape]) -> None:
        before = self._canvas.image.copy()
        self._canvas.image.paste(before.convert("L").convert("RGB"))
        stencil = Canvas(np.zeros((*self._canvas.size, 3), np.uint8))
        for shape in shapes:
            if isinstance(shape, np.ndarray):
                stencil.mask(shape, (255, 255, 255), 1.0)
            else:
                stencil.fill([polygon * self._scale for polygon in shape], (255, 255, 255))
        self._canvas.image.paste(before, mask=stencil.image.convert("L"))

    def _write(self, text: str, box: npt.NDArray[np.float64], color: Color) -> None:
        if not text:
            return
        x0, y0, x1, y1 = (box * np.tile(self._scale, 2)).tolist()
        place = place_label(self._canvas.text_size(text), (x0, y0, x1, y1), self._canvas.size, self._labels)
        self._labels.append(place)
        self._canvas.text(text, place[:2], readable_on(color), color)


def _resized(image: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    if scale == 1.0:
        return image
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _plain(values: Any) -> list[Any] | None:
    return values.tolist() if isinstance(values, torch.Tensor | np.ndarray) else values


def _stacked_keypoints(annotations: Sequence[dict[str, Any]]) -> npt.NDArray[np.float64] | None:
    """Return (N, K, 3), zeros (invisible) for objects without keypoints; None if no object has any."""
    points = [np.reshape(np.asarray(a.get("keypoints") or [], np.float64), (-1, 3)) for a in annotations]
    most = max(map(len, points), default=0)
    return np.stack([np.pad(p, ((0, most - len(p)), (0, 0))) for p in points]) if most else None


def _common_length(**arguments: Any) -> int:
    lengths = {name: len(value) for name, value in arguments.items() if value is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the arguments tell of different numbers of objects: {lengths}")
    return next(iter(lengths.values()), 0)


def _around(
    shapes: Sequence[Shape] | None, points: npt.NDArray[np.float64] | None, index: int
) -> npt.NDArray[np.float64]:
    """Return the box around object ``index``'s mask, or around its keypoints where there are no masks."""
    if shapes is not None:
        return shape_bounds(shapes[index])
    shown = points[index][points[index][:, 2] > 0, :2] if points is not None else np.zeros((0, 2))
    return np.concatenate([shown.min(0), shown.max(0)]) if len(shown) else np.zeros(4)


def _extent(box: npt.NDArray[np.float64]) -> float:
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0)) ** 0.5
