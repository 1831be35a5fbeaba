"""The smallest runs of a packaged recipe, for drawn balloons."""

from pathlib import Path

RECIPE = "balloon/mask_rcnn_tiny.py"
PROGRAM = str(Path(__file__).parents[2] / "train_net.py")
SMALL = [
    "dataloader.train.mapper.augmentations.0.short_edge_length=[64, 96]",
    "dataloader.test.mapper.augmentations.0.short_edge_length=96",
    "dataloader.train.total_batch_size=2",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "train.log_period=1",
    "train.device=cpu",
    "train.precision=fp32",
]
