"""What the tests of fully sharded models run, in one process and on several ranks."""

import json
import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from child_processes import run_ranks
from hookline.distributed import get_rank, get_world_size, set_local_place, synchronize
from hookline.engine import Checkpointer, ClipGradNorm, ClipGradValue, SimpleTrainer, hooks
from hookline.engine.checkpoint_sharded import ShardedCheckpointer
from hookline.engine.data_parallel import UnusedParameterCheck, create_ddp_model
from hookline.engine.fully_sharded import create_fully_sharded_model, is_fully_sharded
from hookline.engine.schedule import CosineParamScheduler

IMAGES = 4  # of a step, over all ranks


class ConvBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(1, width)

    def forward(self, x):
        return x + self.norm(self.conv(x)).relu()


class Net(nn.Module):
    """Blocks that become units, a frozen part, a buffer, and parameters with fewer rows than there are ranks."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(1, 5, 3, padding=1)
        self.blocks = nn.Sequential(ConvBlock(5), ConvBlock(5))
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.score = nn.Linear(5, 1)
        self.extra = nn.Linear(5, 1)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.leave_out = False

    def forward(self, batch):
        x = torch.stack([sample["image"] for sample in batch])
        x = self.frozen(self.blocks(self.stem(x)).mean((2, 3)))
        score = self.score(x).flatten()
        if not self.training:
            return [{"score": float(value)} for value in score]
        self.steps += 1
        target = torch.stack([sample["target"] for sample in batch])
        losses = {"loss_a": (score - target).square().mean()}
        if not self.leave_out:
            losses["loss_b"] = self.extra(x).square().mean()
        return losses


def sample(number):
    generator = torch.Generator().manual_seed(number)
    return {"image": torch.randn(1, 6, 6, generator=generator), "target": torch.randn((), generator=generator)}


class Loader:
    """Each rank's slice of the global batch."""

    start = 0

    def seek(self, number):
        self.start = number

    def __iter__(self):
        own = IMAGES // get_world_size()
        while True:
            first = self.start * IMAGES + get_rank() * own
            self.start += 1
            yield [sample(first + index) for index in range(own)]


class Norms(hooks.HookBase):
    def __init__(self):
        self.seen = []

    def after_step(self):
        self.seen.append(float(self.trainer.storage.latest()["grad_norm"][0]))


def run(
    kind,
    steps,
    *,
    folder=None,
    resume=None,
    period=0,
    optimizer="SGD",
    clip=None,
    accumulate=1,
    precision="fp32",
    seed=0,
    load=None,
    leave_out=None,
    **options,
):
    """Train, and say what came out: losses, whole weights, norms, files."""
    model = Net(seed + (get_rank() if kind == "fsdp" else 0))  # weights of rank 0 count
    wrapped = create_fully_sharded_model(model, "cpu", **options) if kind == "fsdp" else create_ddp_model(model)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kinds = {"SGD": {"lr": 0.1, "momentum": 0.9}, "AdamW": {"lr": 0.01}}
    made = getattr(torch.optim, optimizer)(trainable, **kinds[optimizer])
    clippers = {"norm": ClipGradNorm(0.05), "inf": ClipGradNorm(0.05, float("inf")), "value": ClipGradValue(0.01)}
    clippers["each"] = ClipGradNorm(0.05, per_parameter=True)
    trainer = SimpleTrainer(
        wrapped, Loader(), made, 5, precision=precision, accumulate=accumulate, grad_clip=clippers.get(clip)
    )
    checkpointer = (ShardedCheckpointer if is_fully_sharded(wrapped) else Checkpointer)(
        model, folder or "", max_to_keep=2, trainer=trainer
    )
    norms = Norms()
    trainer.register_hooks(
        [
            UnusedParameterCheck(),
            hooks.LRScheduler(scheduler=CosineParamScheduler(1.0, 0.1)),
            hooks.ResumeReport(),
            norms if clip in ("norm", "inf") else None,
            hooks.PeriodicCheckpointer(checkpointer, period) if period else None,
        ]
    )
    if load:
        checkpointer.load(load, checkpointables=[])
    start = 0 if resume is None else checkpointer.resume(resume) + 1
    model.leave_out = leave_out == get_rank()
    trainer.train(start, steps)
    synchronize()
    losses = trainer.storage.histories().get("total_loss")
    return {
        "start": start,
        "losses": losses.values() if losses else [],
        "weights": {name: whole(value).tolist() for name, value in model.state_dict().items()},
        "norms": norms.seen,
        "files": sorted(path.name for path in Path(folder).iterdir()) if folder else [],
    }


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def on_ranks(script, folder, ranks=2, timeout=400, codes=None):
    """Run the function `main(rank, folder)` of a script on ranks of a gloo group; return what each gave.

    Where other exit codes than 0 are expected, they give nothing.
    """
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    ended = run_ranks(HEAD + script + TAIL, folder, str(ranks), ranks=ranks, timeout=timeout)
    assert [code for code, _ in ended] == (codes or [0] * ranks), "\n".join(output for _, output in ended)
    return [] if codes else [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]


def join(rank, ranks, folder):
    store = f"file://{folder}/store{os.getppid()}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=60))
    set_local_place(rank, ranks)


HEAD = """
import json, logging, sys
from pathlib import Path
import torch
from hookline.engine.launch_end import end_process
from sharded_runs import *

"""
TAIL = """

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
join(rank, int(sys.argv[3]), folder)
(folder / f"rank{rank}.json").write_text(json.dumps(main(rank, folder)))
dist.destroy_process_group()
end_process(0)  # as ranks of launch do: Python's own end may abort a thread of gloo
"""
