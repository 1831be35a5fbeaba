"""Pictures of a run: the first training batches as the model sees them, and predictions beside the ground truth."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from hookline.cli.preflight import training_metadata
from hookline.data import MetadataCatalog
from hookline.data.image_io import read_image
from hookline.distributed import is_main_process
from hookline.engine import get_event_storage, has_event_storage
from hookline.evaluation import DatasetEvaluator
from hookline.visualization import VisImage, Visualizer, draw_sample, grid

__all__ = ["PredictionLogger", "PredictionPainter", "draw_prediction", "save_preview"]

PREVIEW_BATCHES = 2
PREVIEW_IMAGES = 8  # of a batch
SHOW_THRESHOLD = 0.5

logger = logging.getLogger(__name__)


def save_preview(cfg: DictConfig, loader: Any, first_batch: int) -> None:
    """Draw the first batches of a run, with ground truth, into ``preview/`` of its folder.

    The samples are drawn in this process as the stream plans them, so the loader's position is not touched.

    Args:
        cfg: the recipe.
        loader: the training loader; nothing is drawn where it has no ``samples``.
        first_batch: the batch at which the run starts.
    """
    if not hasattr(loader, "samples"):
        return
    folder = Path(cfg.train.output_dir) / "preview"
    folder.mkdir(parents=True, exist_ok=True)
    metadata = training_metadata(cfg)
    image_format = cfg.dataloader.train.mapper.get("image_format", "BGR")
    for number in range(first_batch, first_batch + PREVIEW_BATCHES):
        samples = loader.samples(number, PREVIEW_IMAGES)
        sheet = grid(
            [draw_sample(sample, image_format=image_format, metadata=metadata).get_image() for sample in samples]
        )
        sheet.save(str(folder / f"batch_{number:07d}.jpg"))
    logger.info(f"Pictures of the first batches: {folder}")


class PredictionPainter(DatasetEvaluator):
    """Draw what the model found on every image of an evaluation.

    Args:
        folder: where the pictures go; named after the images.
        loader_node: the recorded call of the test loader, which knows the data set's name.
        threshold: the least score of what is drawn.
    """

    def __init__(self, folder: Path, loader_node: DictConfig, threshold: float = SHOW_THRESHOLD) -> None:
        self.folder = folder
        self.threshold = threshold
        self.metadata = _test_metadata(loader_node)

    def reset(self) -> None:
        """Make the folder; pictures of an earlier evaluation are drawn over."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Draw one batch.

        Args:
            inputs: samples with ``file_name``.
            outputs: predictions with ``instances``.
        """
        for sample, prediction in zip(inputs, outputs, strict=True):
            picture = draw_prediction(sample, prediction, self.metadata, self.threshold)
            picture.save(str(self.folder / f"{_stem(sample)}.jpg"))

    def evaluate(self) -> dict:
        """Say where the pictures are; there are no metrics.

        Returns:
            An empty dict.
        """
        logger.info(f"Pictures of the predictions: {self.folder}")
        return {}

    def metric_names(self, model: Any = None) -> list[str]:
        """Say that there are none."""
        return []


class PredictionLogger(DatasetEvaluator):
    """Hand pictures of what the model found on the first images of an evaluation to the run's writers.

    They are the same images in every evaluation: the first ones of the main rank.

    Args:
        name: put before the images' names, such as the data set's.
        loader_node: the recorded call of the test loader, which knows the data set's name.
        count: how many images.
        threshold: the least score of what is drawn.
    """

    def __init__(self, name: str, loader_node: DictConfig, count: int = 8, threshold: float = SHOW_THRESHOLD) -> None:
        self.prefix = f"predictions/{name}/" if name else "predictions/"
        self.count = count
        self.threshold = threshold
        self.metadata = _test_metadata(loader_node)
        self._left = 0
        self._drawn: list[tuple[str, np.ndarray]] = []

    def reset(self) -> None:
        """Begin with the first image; nothing is drawn outside of a run, or on other ranks than the main one."""
        self._drawn.clear()
        self._left = self.count if is_main_process() and has_event_storage() else 0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Draw a batch as far as its images are among the first ones.

        Args:
            inputs: samples with ``file_name``.
            outputs: predictions with ``instances`` or ``sem_seg``. Others, such as those of a model that is no
                detector, are told once and not drawn: pictures must not end an evaluation.
        """
        for sample, prediction in zip(inputs[: self._left], outputs, strict=False):
            try:
                picture = draw_prediction(sample, prediction, self.metadata, self.threshold).get_image()
                self._drawn.append((self.prefix + _stem(sample), picture.transpose(2, 0, 1)))
            except Exception as error:
                logger.warning("train.loggers.pictures: nothing is drawn: %s: %s", type(error).__name__, error)
                self.count = self._left = 0
                return
            self._left -= 1

    def evaluate(self) -> dict:
        """Hand the pictures over, now that the evaluation is complete; there are no metrics.

        Returns:
            An empty dict.
        """
        for name, picture in self._drawn:
            get_event_storage().put_image(name, picture)
        self._drawn.clear()
        return {}

    def metric_names(self, model: Any = None) -> list[str]:
        """Say that there are none."""
        return []


def draw_prediction(sample: dict, prediction: dict, metadata: Any, threshold: float) -> VisImage:
    """Draw what the model found on one image.

    Args:
        sample: with ``file_name``.
        prediction: with ``instances``, ``sem_seg`` (K, H, W), or both.
        metadata: of the data set; may be None.
        threshold: the least score of instances that are drawn.

    Raises:
        KeyError: if the prediction has neither.
    """
    image = np.asarray(read_image(sample["file_name"], "RGB"))
    visualizer = Visualizer(image, metadata)
    if "sem_seg" in prediction:
        visualizer.draw_sem_seg(prediction["sem_seg"].argmax(dim=0).to("cpu"))
        if "instances" not in prediction:
            return visualizer.output
    instances = prediction["instances"].to("cpu")
    return visualizer.draw_instance_predictions(instances[instances.scores >= threshold])


def _test_metadata(loader_node: DictConfig) -> Any:
    dataset = loader_node.get("dataset")
    name = dataset.get("names") if isinstance(dataset, DictConfig) else dataset
    return MetadataCatalog.get(name) if isinstance(name, str) else None


def _stem(sample: dict) -> str:
    return re.sub(r"[^\w.-]+", "_", Path(sample["file_name"]).stem)
