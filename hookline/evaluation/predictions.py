"""What is kept of a model's predictions, and COCO's form of it.

Axes: N predictions of one image, D of a whole data set, K keypoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hookline.structures import Instances, Rle, encode_masks

__all__ = ["Detections", "ImagePredictions"]

ImageId = int | str

# In COCO a keypoint names its pixel by whole numbers, whose centre lies at + 0.5 in our coordinates.
KEYPOINT_OFFSET = 0.5


@dataclass(slots=True)
class ImagePredictions:
    """The predictions of one image, without the model's tensors.

    Attributes:
        image_id: of the image in its data set.
        boxes: float32 (N, 4) as (x, y, width, height) in pixels.
        scores: float32 (N,).
        classes: int64 (N,), contiguous class numbers.
        rles: N run-length codes of the masks, or None.
        keypoints: float32 (N, K, 3) as COCO's (x, y, score), or None.
    """

    image_id: ImageId
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    rles: list[Rle] | None
    keypoints: np.ndarray | None

    @classmethod
    def from_instances(cls, instances: Instances, image_id: ImageId, tasks: Sequence[str] | None) -> ImagePredictions:
        """Take over what the tasks need; masks become run-length codes at once.

        Args:
            instances: with ``pred_boxes``, ``scores``, ``pred_classes``, and where the model has them ``pred_masks``
                (a bool tensor, or codes) and ``pred_keypoints``; on any device.
            image_id: of the image, for the record and for messages.
            tasks: which of ``bbox``, ``segm``, ``keypoints`` will be evaluated; None for what there is.

        Raises:
            ValueError: a field is missing or holds numbers that are not finite.
        """
        needed = ["pred_boxes", "scores", "pred_classes"]
        needed += ["pred_masks"] if "segm" in (tasks or ()) else []
        needed += ["pred_keypoints"] if "keypoints" in (tasks or ()) else []
        missing = [name for name in needed if not instances.has(name)]
        if missing:
            raise ValueError(f"image {image_id!r}: the prediction has no field {', '.join(map(repr, missing))}")
        boxes, scores = _numbers(instances.pred_boxes.tensor), _numbers(instances.scores)
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError(f"image {image_id!r}: predicted boxes or scores are not finite")
        boxes[:, 2:] -= boxes[:, :2]
        return cls(
            image_id=image_id,
            boxes=boxes,
            scores=scores,
            classes=instances.pred_classes.cpu().numpy().astype(np.int64),
            rles=_codes(instances, tasks),
            keypoints=_keypoints(instances, tasks),
        )

    def check_classes(self, num_classes: int) -> None:
        """Refuse class numbers that the data set does not have.

        Args:
            num_classes: of the data set.

        Raises:
            ValueError: naming the image and the class.
        """
        wrong = self.classes[(self.classes < 0) | (self.classes >= num_classes)]
        if len(wrong):
            raise ValueError(
                f"image {self.image_id!r}: predicted class {wrong[0]}, but the data set has {num_classes} classes "
                f"(0 to {num_classes - 1}); was the model built for another data set?"
            )


def _numbers(tensor: Tensor) -> np.ndarray:
    """A float32 array of its own memory, as it is changed and outlives the model's buffers."""
    return tensor.detach().float().cpu().numpy().copy()


def _codes(instances: Instances, tasks: Sequence[str] | None) -> list[Rle] | None:
    if not instances.has("pred_masks") or (tasks is not None and "segm" not in tasks):
        return None
    masks = instances.pred_masks
    if isinstance(masks, Tensor):
        return encode_masks(masks)
    return encode_masks(masks.tensor) if hasattr(masks, "tensor") else list(masks)


def _keypoints(instances: Instances, tasks: Sequence[str] | None) -> np.ndarray | None:
    if not instances.has("pred_keypoints") or (tasks is not None and "keypoints" not in tasks):
        return None
    keypoints = _numbers(instances.pred_keypoints)
    keypoints[:, :, :2] -= KEYPOINT_OFFSET
    return keypoints


@dataclass(slots=True)
class Detections:
    """The predictions on a whole data set in columns, in the order in which they came.

    Attributes:
        images: the ids of images, as in the data set.
        image_index: int64 (D,), places in ``images``.
        category_ids: int64 (D,), ids of categories as in the data set (not class numbers).
        scores: (D,), float32 as a model gives them, float64 as a file does.
        boxes: (D, 4) as (x, y, width, height) in pixels, or None.
        rles: D run-length codes, or None.
        keypoints: (D, K, 3) as COCO's (x, y, score), or None.
    """

    images: list[ImageId]
    image_index: np.ndarray
    category_ids: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray | None
    rles: list[Rle] | None
    keypoints: np.ndarray | None

    def __len__(self) -> int:
        return len(self.scores)

    def tasks(self) -> list[str]:
        """Return which of ``bbox``, ``segm``, ``keypoints`` can be evaluated."""
        columns = {"bbox": self.boxes, "segm": self.rles, "keypoints": self.keypoints}
        return [task for task, column in columns.items() if column is not None]

    @classmethod
    def join(cls, predictions: Sequence[ImagePredictions], category_ids: Sequence[int]) -> Detections:
        """Put the predictions of many images together.

        Args:
            predictions: at least one.
            category_ids: the data set's category id of each class number.

        Raises:
            IndexError: a class number has no category; ``ImagePredictions.check_classes`` says it better.
            ValueError: only some images have masks or keypoints.
        """
        classes = np.concatenate([one.classes for one in predictions])
        if len(classes) and (classes.min() < 0 or classes.max() >= len(category_ids)):
            raise IndexError(f"classes {classes.min()} to {classes.max()} for {len(category_ids)} categories")
        with_masks, with_keypoints = (_all_have(predictions, name) for name in ("rles", "keypoints"))
        return cls(
            images=[one.image_id for one in predictions],
            image_index=np.repeat(np.arange(len(predictions)), [len(one.scores) for one in predictions]),
            category_ids=np.asarray(category_ids, dtype=np.int64)[classes],
            scores=np.concatenate([one.scores for one in predictions]),
            boxes=np.concatenate([one.boxes for one in predictions]),
            rles=[rle for one in predictions for rle in one.rles or ()] if with_masks else None,
            keypoints=np.concatenate([one.keypoints for one in predictions if one.keypoints is not None])
            if with_keypoints
            else None,
        )

    def results(
        self, start: int = 0, stop: int | None = None, *, fields: Sequence[str] | None = None
    ) -> Iterator[dict]:
        """Yield COCO's results, plain values that ``json.dumps`` takes.

        Args:
            start: first prediction.
            stop: one past the last one.
            fields: which of ``bbox``, ``segmentation``, ``keypoints`` to give, where there; all by default.
        """
        part = slice(start, stop)
        columns: dict[str, list] = {
            "image_id": [self.images[k] for k in self.image_index[part].tolist()],
            "category_id": self.category_ids[part].tolist(),
        }
        if self.boxes is not None and (fields is None or "bbox" in fields):
            columns["bbox"] = self.boxes[part].tolist()
        columns["score"] = self.scores[part].tolist()
        if self.rles is not None and (fields is None or "segmentation" in fields):
            columns["segmentation"] = [_plain(rle) for rle in self.rles[part]]
        if self.keypoints is not None and (fields is None or "keypoints" in fields):
            columns["keypoints"] = self.keypoints[part].reshape(-1, 3 * self.keypoints.shape[1]).tolist()
        names = tuple(columns)
        return (dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _all_have(predictions: Sequence[ImagePredictions], name: str) -> bool:
    without = [one.image_id for one in predictions if getattr(one, name) is None]
    if without and len(without) < len(predictions):
        field = {"rles": "pred_masks", "keypoints": "pred_keypoints"}[name]
        raise ValueError(f"image {without[0]!r}: the prediction has no field {field!r}, unlike those of other images")
    return not without


def _plain(rle: Rle) -> Rle:
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": list(rle["size"]), "counts": text}
