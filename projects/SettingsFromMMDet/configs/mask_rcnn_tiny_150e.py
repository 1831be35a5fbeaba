"""The settings of MMDetection's 150-epoch example, for a small Mask R-CNN on the balloon set (61 images).

python train_net.py --config-file projects/SettingsFromMMDet/configs/mask_rcnn_tiny_150e.py
"""

import torch

from hookline.cli.recipes import find_recipe
from hookline.config import LazyCall as L
from hookline.config import LazyConfig
from hookline.engine import get_param_groups_by_name
from hookline.engine.schedule import MultiStepParamScheduler

_base = LazyConfig.load(str(find_recipe("balloon/mask_rcnn_tiny.py")))
model, dataloader, train = (_base[name] for name in ("model", "dataloader", "train"))

# optimizer = dict(type='AdamW', lr=1e-4, weight_decay=1e-4,
#                  paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1, decay_mult=1.0)}))
optimizer = L(torch.optim.AdamW)(
    params=L(get_param_groups_by_name)(
        base_lr="${..lr}",
        weight_decay="${..weight_decay}",
        rules={"backbone": {"lr_mult": 0.1, "decay_mult": 1.0}},
    ),
    lr=1e-4,
    weight_decay=1e-4,
)
# optimizer_config = dict(grad_clip=dict(max_norm=0.1, norm_type=2))
train.grad_clip = {"max_norm": 0.1, "norm_type": 2}
# lr_config = dict(policy='step', step=[100])
lr_multiplier = L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[100], num_updates="${train.max_epochs}")
# runner = dict(type='EpochBasedRunner', max_epochs=150)
train.max_iter = None
train.max_epochs = 150
# evaluation = dict(interval=5)
train.eval_period, train.eval_period_epochs = None, 5
# checkpoint_config = dict(interval=20)
train.checkpointer.period, train.checkpointer.period_epochs = None, 20
# log_config = dict(interval=50)
train.log_period = 50

train.output_dir = "./output/SettingsFromMMDet/mask_rcnn_tiny_150e"
