"""COCO 2017 instances under ``$HOOKLINE_DATASETS/coco``: 80 classes, boxes and masks."""

from .balloon import dataloader

dataloader.train.dataset.names = "coco_2017_train"
dataloader.test.dataset.names = "coco_2017_val"
