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
from hookline.evaluation import DatasetEvaluator
from hookline.visualization import Visualizer, draw_sample, grid

__all__ = ["PredictionPainter", "save_preview"]

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
        dataset = loader_node.get("dataset")
        name = dataset.get("names") if isinstance(dataset, DictConfig) else dataset
        self.metadata = MetadataCatalog.get(name) if isinstance(name, str) else None

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
            instances = prediction["instances"].to("cpu")
            image = np.asarray(read_image(sample["file_name"], "RGB"))
            visualizer = Visualizer(image, self.metadata)
            picture = visualizer.draw_instance_predictions(instances[instances.scores >= self.threshold])
            stem = re.sub(r"[^\w.-]+", "_", Path(sample["file_name"]).stem)
            picture.save(str(self.folder / f"{stem}.jpg"))

    def evaluate(self) -> dict:
        """Say where the pictures are; there are no metrics.

        Returns:
            An empty dict.
        """
        logger.info(f"Pictures of the predictions: {self.folder}")
        return {}
