"""The demo: the tiny recipe on drawn balloons, within five minutes on two CPU cores."""

from .mask_rcnn_tiny import train

train.output_dir = "./output/demo"
