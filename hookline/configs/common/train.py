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
        # a number, {"max_norm": 1.0, "norm_type": 2.0, "per_parameter": False} or {"clip_value": 0.5}; each records the
        # metric grad_norm, {"max_norm": inf} does nothing else
        "grad_clip": None,
        "reference_batch_size": None,  # images a step for which optimizer.lr was chosen
        "auto_scale_lr": False,  # multiply it by this run's images a step / reference_batch_size; also --auto-scale-lr
        # for several processes; further options of DistributedDataParallel may be added
        "ddp": {
            "broadcast_buffers": False,
            "find_unused_parameters": False,  # where the model leaves parameters out in some steps
            "static_graph": False,  # where it uses the same ones in every step
            "fp16_compression": False,  # send gradients in half precision
        },
        # for models whose training does not fit on one device: each process holds a part of them; see docs/fsdp.md.
        # None, or a dict, which may be empty: {"units", "reshard_after_forward", "gather_dtype", "cpu_offload",
        # "reduce_every_batch", "find_unused_parameters"}
        "fsdp": None,
        "checkpointer": {
            "period": 5000,
            "period_epochs": None,  # instead of period; 0.5 and the like too
            "max_to_keep": 100,  # of the periodic files
            "save_last": True,  # model_final.pth
            "save_optimizer": True,  # False: slim periodic files, from which a run cannot be resumed
            "dir": None,  # another folder than output_dir
            "save_best": None,  # "auto" (the evaluator's first metric), the name of a metric, or several
            "rule": None,  # "greater" or "less" is better; by default as the metric's name tells
            "asynchronous": False,  # write in a thread, from a copy in memory
            "on_save_error": "raise",  # or "warn": train on when the disk is full
        },
        # what a run does when it is asked to stop, by SIGTERM, SIGUSR1, SIGUSR2, HFAI's flag or one of these:
        "suspend": {
            "flag_file": None,  # a file whose appearance asks for it
            "deadline_s": None,  # so many seconds after the start, or "slurm": the end of this Slurm job
            "deadline_margin_s": 60,  # so long before that
            "on_suspend": None,  # when it is saved, "requeue" (Slurm) or "go_suspend" (HFAI, where it is the default)
            "exit_code": None,  # by default 128 + the signal, 75 for other reasons
            "grace_s": None,  # seconds that the system gives; a longer save is warned about
            "period": 1,  # agree with the other processes every so many steps
        },
        # averages of the weights; see docs/averages.md
        "ema": None,  # {"decay" or "half_life" in steps, "warmup", "evaluate": "instead", "beside", None, "save_final"}
        "swa": None,  # {"start": steps, or a share of the run, "period", "evaluate", "save_final"}
        # statistics of batch norm from "num_iter" batches, every "period" steps (None: when evaluating) and at the end
        "precise_bn": None,
        # {"target": "model" or names of its modules, "mode", "dynamic", "fullgraph", "backend"} for torch.compile
        "compile": None,
        # see docs/guards.md
        "guards": {
            "non_finite": "raise",  # or "skip" such steps, or "restore" the last checkpoint and leave them out then
            "max_skips": 10,  # steps left out
            "max_restores": 3,
            "window": 1000,  # iterations within which more than that ends the run
            "anomaly": False,  # repeat such steps, to name the module
            "gc_period": None,  # iterations between two garbage collections; null leaves them to Python
            "memory_growth": None,  # share by which a process may grow before it is named, such as 0.25
            "memory_period": 1000,  # iterations between two looks
            "watchdog_s": None,  # a step that takes longer has all stacks logged
            "watchdog_between_s": 3600,  # the same for evaluations, checkpoints and the first step
            "watchdog_abort": False,  # and end the run
        },
        # of each process; None leaves it as torch, OpenCV and Python have it
        "env": {
            "num_threads": None,  # of one operation on the CPU; by default the machine's CPUs divided among its ranks
            "num_interop_threads": None,  # for operations beside each other
            "opencv_num_threads": None,  # of OpenCV, in data workers too; 0 does without threads
            "mp_start_method": None,  # of data workers: "fork", "spawn", "forkserver"
            "sharing_strategy": None,  # how tensors come from data workers: "file_descriptor", "file_system"
            "cudnn_benchmark": None,  # try which algorithm is fastest for each shape
            "cudnn_deterministic": None,  # only algorithms that give the same result each time
            "matmul_precision": None,  # of float32 products: "highest", "high", "medium"
            "log_level": "INFO",  # "DEBUG", "INFO", "WARNING", "ERROR"
            "backend": None,  # between processes: "nccl", "gloo"; by default what the device needs
            "rendezvous_timeout_s": 300,  # for all ranks to come together
            "timeout_s": 1800,  # for a rank to come where all ranks do the same work
            "eval_timeout_s": 7200,  # for what one rank does alone, such as evaluating and writing
        },
        "allow_changed_data": False,  # resume although the data set or the global batch size changed
        # see docs/evaluation.md
        "eval_period": 5000,  # 0: at the end only
        "eval_period_epochs": None,  # instead of eval_period; 0.5 and the like too
        "eval_start": 0,  # no evaluation before so many iterations
        "eval_start_epochs": None,  # or epochs
        "eval_after_train": True,
        "early_stopping": None,  # {"metric", "patience": evaluations, "min_improvement", "rule"}
        "validation_loss": None,  # over dataloader.validation: {"period" or "period_epochs", "after_train"}
        "log_period": 20,
        # who writes down what is measured every log_period steps; see docs/loggers.md
        "loggers": {
            "console": True,
            "json": True,  # metrics.json
            "tensorboard": {"hparams": True},  # hparams: the recipe's settings in the table of runs; null for none
            "wandb": None,  # {"project": "balloons", "mode": "offline"}; True for W&B's own defaults
            "mlflow": None,  # {"tracking_uri": "sqlite:///mlflow.db", "experiment": "balloons"}
            "others": None,  # a list of recorded calls of your own writers
            "pictures": None,  # {"count": 8}: predictions on the first images of each evaluation
            "histograms": None,  # {"period": 1000}: of parameters and gradients
            "timeout_s": 60,  # how long the end of a run waits for what W&B and MLflow were not sent yet
        },
    }
)
