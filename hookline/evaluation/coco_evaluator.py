"""Average precision of boxes, masks and keypoints, as COCO defines it."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hookline.distributed import gather, is_main_process
from hookline.evaluation.coco_evaluation import CocoSettings, evaluate_detections, metric_names
from hookline.evaluation.evaluator import DatasetEvaluator
from hookline.evaluation.ground_truth import GroundTruth, load_ground_truth
from hookline.evaluation.predictions import Detections, ImageId, ImagePredictions
from hookline.evaluation.results_file import write_results

__all__ = ["COCOEvaluator"]

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]
_FIELDS = {"bbox": "pred_boxes", "segm": "pred_masks", "keypoints": "pred_keypoints"}


class COCOEvaluator(DatasetEvaluator):
    """Measure average precision on any data set, in COCO's way.

    Predictions on the images of each rank are gathered on rank 0 and evaluated there; an image that came to several
    ranks counts once. The metrics are those of Detectron2, in percent: ``AP, AP50, AP75, APs, APm, APl`` and, with more
    than one class, ``AP-<class>``; NaN where there is no ground truth, or no prediction at all.

    Args:
        dataset: the records of the data set, or the path of a COCO JSON file.
        tasks: which of ``bbox``, ``segm``, ``keypoints``; by default what the predictions hold and the data set has.
        distributed: gather the predictions of all ranks; else each rank evaluates its own.
        output_dir: where ``coco_instances_results.json`` is written, if at all.
        metadata: of the data set, see ``load_ground_truth``; records need it.
        max_dets_per_image: see ``CocoSettings``.
        kpt_oks_sigmas: see ``CocoSettings``.
        use_fast_impl: hotcoco instead of pycocotools; the numbers are the same.
    """

    def __init__(
        self,
        dataset: str | os.PathLike[str] | Sequence[Record],
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | os.PathLike[str] | None = None,
        *,
        metadata: Any = None,
        max_dets_per_image: int | Sequence[int] | None = None,
        kpt_oks_sigmas: Sequence[float] = (),
        use_fast_impl: bool = True,
    ) -> None:
        self.dataset = dataset
        self.metadata = metadata
        self.distributed = distributed
        self.output_dir = output_dir
        self.settings = CocoSettings(
            None if tasks is None else tuple(tasks), max_dets_per_image, tuple(kpt_oks_sigmas), use_fast_impl
        )
        self._ground_truth: GroundTruth | None = None
        self._processed: list[ImagePredictions] = []
        self._detections: Detections | None = None

    def reset(self) -> None:
        """Forget the predictions; the rank that evaluates loads the ground truth now rather than fail at the end."""
        self._processed = []
        self._detections = None
        if self._evaluates():
            self._loaded()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep what the metrics need of a batch; masks become run-length codes.

        Args:
            inputs: samples with ``image_id``.
            outputs: predictions with ``instances``, in pixels of the original image.

        Raises:
            ValueError: a prediction has no ``instances``.
        """
        for sample, prediction in zip(inputs, outputs, strict=True):
            image_id = sample["image_id"]
            if "instances" not in prediction:
                raise ValueError(f"image {image_id!r}: the prediction has no 'instances', only {sorted(prediction)}")
            one = ImagePredictions.from_instances(prediction["instances"], image_id, self.settings.tasks)
            if self._ground_truth is not None:  # other ranks learn it when all predictions are gathered
                one.check_classes(len(self._ground_truth.category_ids))
            self._processed.append(one)

    def evaluate(self, img_ids: Collection[ImageId] | None = None) -> OrderedDict[str, Any]:
        """Gather, write the results file, and evaluate.

        Args:
            img_ids: the images that count, all of the data set by default.

        Returns:
            ``{task: {metric: percent}}``; empty on the ranks that do not evaluate, and where nothing was processed.
        """
        parts = gather(self._processed) if self.distributed else [self._processed]
        if not self._evaluates():
            return OrderedDict()
        predictions = _without_duplicates(parts)
        if not predictions:
            logger.warning("COCOEvaluator got no predictions: no image was processed")
            return OrderedDict()
        ground_truth = self._loaded()
        for one in predictions:
            one.check_classes(len(ground_truth.category_ids))
        self._detections = Detections.join(predictions, ground_truth.category_ids)
        if self.output_dir is not None:
            path = os.path.join(self.output_dir, "coco_instances_results.json")
            self.save_predictions(path)
            logger.info(f"Results written to {path}")
        return evaluate_detections(ground_truth, self._detections, self.settings, img_ids)

    def metric_names(self, model: Any = None) -> list[str]:
        """List the metrics by name, such as ``bbox/AP`` and ``segm/AP-cat``; reads the ground truth.

        Args:
            model: its ``predicted_fields`` tell, where it has them, whether it predicts masks and keypoints.
        """
        ground_truth, tasks = self._loaded(), self.settings.tasks
        if tasks is None:
            fields = getattr(model, "predicted_fields", None)
            possible = [task for task, field in _FIELDS.items() if fields is None or field in fields]
            tasks = tuple(task for task in possible if ground_truth.has(task))
        return [f"{task}/{name}" for task in tasks for name in metric_names(task, ground_truth)]

    def class_names(self) -> list[str]:
        """List the data set's classes by class number; reads the ground truth."""
        return list(self._loaded().class_names)

    def predictions(self) -> list[dict[str, Any]]:
        """Return what ``evaluate`` gathered as COCO results, plain values; nothing on ranks that do not evaluate."""
        return [] if self._detections is None else list(self._detections.results())

    def save_predictions(self, path: str | os.PathLike[str]) -> None:
        """Write what ``evaluate`` gathered as COCO results, for ``evaluate_predictions`` or another tool.

        Args:
            path: of the JSON file; its folder is made.

        Raises:
            RuntimeError: nothing was evaluated on this rank.
        """
        if self._detections is None:
            raise RuntimeError("save_predictions writes what evaluate() gathered: call that first, on the first rank")
        write_results(self._detections, path)

    def _loaded(self) -> GroundTruth:
        if self._ground_truth is None:
            self._ground_truth = load_ground_truth(self.dataset, self.metadata)
        return self._ground_truth

    def _evaluates(self) -> bool:
        return is_main_process() or not self.distributed


def _without_duplicates(parts: Sequence[list[ImagePredictions]]) -> list[ImagePredictions]:
    """Join what the ranks saw; samplers that fill up ranks show an image twice, which must not count twice."""
    found: dict[ImageId, ImagePredictions] = {}
    for part in parts:
        for one in part:
            found.setdefault(one.image_id, one)
    extra = sum(map(len, parts)) - len(found)
    if extra:
        logger.warning(f"{extra} predictions were for images that had one already; the first one of each image counts")
    return list(found.values())
