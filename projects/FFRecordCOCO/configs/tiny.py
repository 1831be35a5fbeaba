"""A small model for two CPU cores on 50 images of COCO: shows the way, learns nothing.

python train_net.py --config-file projects/FFRecordCOCO/configs/tiny.py
"""

import hookline.data.transforms as T
from hookline.cli.recipes import find_recipe
from hookline.config import LazyCall as L
from hookline.config import LazyConfig

from . import packed as _packed

_base = LazyConfig.load(str(find_recipe("balloon/mask_rcnn_tiny.py")))
_coco = LazyConfig.load(str(find_recipe("coco/mask_rcnn_R_50_FPN_1x.py")))
model, optimizer, lr_multiplier, train = (_base[name] for name in ("model", "optimizer", "lr_multiplier", "train"))
dataloader = _coco.dataloader

model.roi_heads.num_classes = 80
dataloader.train.mapper.image_format = model.input_format
dataloader.train.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=128), L(T.RandomFlip)()]
dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=128)]
dataloader.train.total_batch_size = 2
dataloader.train.num_workers = 2
dataloader.test.num_workers = 2

train.output_dir = "./output/FFRecordCOCO/tiny"
train.max_iter = 10
train.log_period = 1
train.checkpointer.period = 1000
