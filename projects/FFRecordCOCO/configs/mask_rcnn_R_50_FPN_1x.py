"""The packaged COCO recipe, from the pack; suspended and resumed as the cluster likes.

python train_net.py --config-file projects/FFRecordCOCO/configs/mask_rcnn_R_50_FPN_1x.py --num-gpus 8 --resume
Needs $HOOKLINE_DATASETS/coco/coco.ffr. Not trained by us to its end; see README.md for what was run.
"""

from hookline.cli.recipes import find_recipe
from hookline.config import LazyConfig

from . import packed as _packed

_base = LazyConfig.load(str(find_recipe("coco/mask_rcnn_R_50_FPN_1x.py")))
model, dataloader, optimizer, lr_multiplier, train = (
    _base[name] for name in ("model", "dataloader", "optimizer", "lr_multiplier", "train")
)

train.output_dir = "./output/FFRecordCOCO/mask_rcnn_R_50_FPN_1x"
train.suspend.grace_s = 5  # what HFAI gives; its flag is polled by itself where its client is installed
train.checkpointer.asynchronous = True
