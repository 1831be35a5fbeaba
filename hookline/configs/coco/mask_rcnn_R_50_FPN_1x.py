"""Mask R-CNN R50-FPN on COCO 2017, the 1x schedule of 90,000 steps of 16 images, from ImageNet weights, on 8 GPUs.

python train_net.py --config-file coco/mask_rcnn_R_50_FPN_1x.py --num-gpus 8 --load-from WEIGHTS
Not trained by us yet: no GPU was at hand. Detectron2 states 38.6 box AP and 35.2 mask AP for this recipe.
"""

from ..common.data.coco import dataloader
from ..common.models.mask_rcnn_fpn import model
from ..common.optim import SGD as optimizer
from ..common.schedules import coco_multiplier
from ..common.train import train

lr_multiplier = coco_multiplier(epochs=12)

train.output_dir = "./output/coco/mask_rcnn_R_50_FPN_1x"
train.max_iter = 90000
train.ddp.fp16_compression = True
