"""Mask R-CNN R50-FPN on the balloon set, from COCO or ImageNet weights, on GPUs.

python train_net.py --config-file balloon/mask_rcnn_R_50_FPN.py --num-gpus 1 --load-from WEIGHTS
WEIGHTS: the zoo's COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x file (the class layers differ and start fresh), or
an ImageNet ResNet-50. Not yet trained here: no GPU was at hand.
"""

from ..common.data.balloon import dataloader
from ..common.models.mask_rcnn_fpn import model
from ..common.optim import SGD as optimizer
from ..common.schedules import cosine_multiplier
from ..common.train import train

model.roi_heads.num_classes = 1
model.roi_heads.batch_size_per_image = 128  # a few balloons an image
dataloader.train.total_batch_size = 4
optimizer.lr = 0.005  # 0.02 for 16 images, by the linear rule
lr_multiplier = cosine_multiplier(warmup=0.1)

train.output_dir = "./output/balloon/mask_rcnn_R_50_FPN"
train.precision = "bf16"
train.max_iter = 600  # about 40 epochs of 61 images
train.eval_period = 200
train.checkpointer.period = 200
