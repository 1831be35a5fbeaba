"""The ``train`` node with every setting that a run knows; recipes change what differs."""

from omegaconf import OmegaConf

train = OmegaConf.create(
    {
        "output_dir": "./output",
        "init_checkpoint": "",
        "seed": 0,
        "device": "auto",  # "cuda", "cpu", or "auto": a GPU where there is one
        "max_iter": 90000,  # optimizer steps
        "max_epochs": None,  # instead of max_iter
        "precision": "fp32",  # "tf32", "bf16", "fp16"
        "amp": {"enabled": False},  # Detectron2's switch: the same as precision="fp16" on a GPU
        "accumulate": 1,  # batches per optimizer step
        "grad_clip": None,  # {"max_norm": 1.0, "norm_type": 2.0} or {"max_value": 0.5}
        "ddp": {"broadcast_buffers": False, "find_unused_parameters": False, "fp16_compression": False},
        "checkpointer": {"period": 5000, "max_to_keep": 100, "asynchronous": False},
        "eval_period": 5000,
        "log_period": 20,
    }
)
