"""Optimizers with the parameter groups of the papers."""

import torch

from hookline.config import LazyCall as L
from hookline.engine import get_default_optimizer_params

# Normalisation layers are not decayed, as in the Mask R-CNN paper's successors; ``params.model`` is given at run time.
SGD = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0), lr=0.02, momentum=0.9, weight_decay=1e-4
)
AdamW = L(torch.optim.AdamW)(
    params=L(get_default_optimizer_params)(base_lr="${..lr}", weight_decay_norm=0.0),
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.1,
)
