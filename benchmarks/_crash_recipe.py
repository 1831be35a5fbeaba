"""The tiny Mask R-CNN that ``benchmarks/crash.py`` trains: a quarter of a second for a step, all parts at work."""

import hookline.data.transforms as T
from hookline.config import LazyCall as L
from hookline.configs.common.data.balloon import dataloader
from hookline.configs.common.models.mask_rcnn_tiny import model
from hookline.configs.common.optim import AdamW as optimizer
from hookline.configs.common.schedules import cosine_multiplier
from hookline.configs.common.train import train

dataloader.train.mapper.image_format = model.input_format
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=(64, 80, 96), max_size=128, sample_style="choice"),
    L(T.RandomFlip)(horizontal=True),
]
dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=80, max_size=128)]
dataloader.train.total_batch_size = 2
dataloader.test.num_workers = 0

model.proposal_generator.batch_size_per_image = 16
model.proposal_generator.pre_nms_topk = (50, 50)
model.proposal_generator.post_nms_topk = (20, 10)
model.roi_heads.batch_size_per_image = 16

optimizer.lr = 1e-3
lr_multiplier = cosine_multiplier(warmup=0.1)

train.device = "cpu"
train.max_iter = 60
train.checkpointer = {"period": 3, "max_to_keep": 3}
train.eval_period = 0
train.log_period = 1
