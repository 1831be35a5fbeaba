"""The demo: the tiny model on drawn balloons, within five minutes on two CPU cores; started by ``hookline demo``."""

import hookline.data.transforms as T
from hookline.config import LazyCall as L

from .mask_rcnn_tiny import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=(224, 256, 288), max_size=384, sample_style="choice"),
    L(T.RandomFlip)(horizontal=True),
]

train.output_dir = "./output/demo"
train.max_iter = 420
train.eval_period = 0  # at the end
train.checkpointer.period = 210
