"""The tiny Mask R-CNN on the balloon set, from the weights that the demo learnt on drawn balloons.

hookline demo
python train_net.py --config-file balloon/mask_rcnn_tiny_from_demo.py --load-from output/demo/model_final.pth
"""

from .mask_rcnn_tiny import dataloader, lr_multiplier, model, optimizer, train

optimizer.lr = 5e-4
train.output_dir = "./output/balloon/mask_rcnn_tiny_from_demo"
train.max_iter = 800
train.eval_period = 400
train.checkpointer.period = 400
