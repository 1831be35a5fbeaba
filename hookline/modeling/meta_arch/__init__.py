"""Meta architectures: whole models, from samples to losses or predictions."""

from hookline.modeling.meta_arch.rcnn import GeneralizedRCNN

__all__ = ["GeneralizedRCNN"]
