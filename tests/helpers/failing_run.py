"""A training on several ranks that fails where its arguments say: the program of the failure matrix.

    python failing_run.py FOLDER --procs 2 [--where forward --how kill --rank 1] [--resume]

It is a whole run: data workers, checkpoints every 3 steps, an evaluation every 5, losses written to a file. When the
failure begins, `FOLDER/fault` appears with the time in it.
"""

import argparse
import os
import resource
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn

from hookline.data import build_detection_test_loader, build_detection_train_loader
from hookline.distributed import all_gather, get_rank, get_world_size, is_main_process
from hookline.engine import Checkpointer, HookBase, JSONWriter, SimpleTrainer, hooks, launch_causes
from hookline.engine.data_parallel import create_ddp_model
from hookline.engine.launch import launch
from hookline.evaluation import DatasetEvaluator, inference_on_dataset

LAST = 12
FAULT_ITER = 7  # behind the checkpoint of step 5
RECORDS = [{"number": n, "file_name": f"{n:02d}.jpg", "image_id": n} for n in range(24)]


class Fault:
    """What goes wrong, and where.

    Args:
        args: the command line.
    """

    def __init__(self, args):
        self.args = args
        self.iter = -1  # of the trainer
        self.is_over = False

    def at(self, where, iteration=None):
        """Fail, if this is the place and the rank; the iteration counts where one is given."""
        args = self.args
        if args.once and Path(args.folder, "fault").exists():
            return
        if where == args.where and iteration == FAULT_ITER and args.slow and get_rank() != args.rank:
            time.sleep(args.slow)  # so that it waits for nobody when the other one fails
        if where != args.where or (iteration is not None and iteration != FAULT_ITER) or get_rank() != args.rank:
            return
        self.happen()

    def happen(self):
        note(self.args.folder)
        how = self.args.how
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "raise":
            raise ValueError(f"broken in {self.args.where} on purpose")
        elif how == "exit":
            sys.exit(5)
        elif how == "hang":
            time.sleep(3600)
        elif how == "starter":
            os.kill(int(Path(self.args.folder, f"starter{self.args.machine or 0}").read_text()), signal.SIGKILL)
        elif how == "wait":  # for a signal that the test sends
            for _ in range(600):
                time.sleep(0.1)


def note(folder):
    """Write down that, and when, the failure begins."""
    Path(folder, "fault.new").write_text(repr(time.time()))
    os.replace(Path(folder, "fault.new"), Path(folder, "fault"))


class Mapper:
    """Makes a sample of a record, in a data worker."""

    def __init__(self, fault):
        self.fault = fault
        self.rank = get_rank()  # workers have no process group
        self.made = 0

    def __call__(self, record):
        self.made += 1
        args = self.fault.args
        if args.where == "worker" and args.rank == self.rank and self.made == 30:
            self.fault.happen()
        generator = torch.Generator().manual_seed(record["number"])
        return {**record, "x": torch.randn(4, generator=generator)}


class Model(nn.Module):
    """A linear model with dropout, which draws from the generators."""

    def __init__(self, fault):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.fault = fault

    def forward(self, batch):
        if not self.training:
            self.fault.at("final_evaluation" if self.fault.is_over else "evaluation")
            return [{"sum": float(self.linear(sample["x"]).sum())} for sample in batch]
        self.fault.at("forward", self.fault.iter)
        out = self.linear(torch.stack([sample["x"] for sample in batch]))
        out.register_hook(lambda grad: self.fault.at("backward", self.fault.iter))
        return {"loss": nn.functional.dropout(out, 0.2).square().mean()}


class Sum(DatasetEvaluator):
    """Adds up all outputs of all ranks."""

    def reset(self):
        self.outputs = []

    def process(self, inputs, outputs):
        self.outputs += [output["sum"] for output in outputs]

    def evaluate(self):
        everywhere = all_gather(self.outputs)
        return {"sum": {"all": sum(map(sum, everywhere)), "count": float(sum(map(len, everywhere)))}}


class FaultHook(HookBase):
    """Fails at a moment of the loop; tells the others where the loop is."""

    def __init__(self, fault):
        self.fault = fault

    def before_step(self):
        self.fault.iter = self.trainer.iter
        if self.trainer.iter == FAULT_ITER and get_rank() == self.fault.args.rank:
            self.prepare(self.fault.args.where)

    def after_step(self):
        self.fault.at("hook", self.trainer.iter)

    def after_train(self):
        self.fault.is_over = self.trainer.iter >= self.trainer.max_iter
        if self.fault.is_over:
            self.fault.at("after_train")

    def prepare(self, where):
        """Arrange for a failure that comes from outside."""
        if where == "disk":
            note(self.fault.args.folder)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, resource.RLIM_INFINITY))
        if where == "save":
            torch.save = self.save_half

    def save_half(self, tree, file):
        file.write(b"half of a checkpoint")
        file.flush()
        assert list(Path(self.fault.args.folder).glob("*.tmp"))
        self.fault.happen()


def main(args):
    """Train on this rank."""
    torch.manual_seed(0)
    launch_causes._WATCH_GRACE_S = args.grace
    fault, rank = Fault(args), get_rank()
    Path(args.folder, f"pid{rank}").write_text(str(os.getpid()))
    model = Model(fault)
    loader = build_detection_train_loader(
        RECORDS, mapper=Mapper(fault), total_batch_size=12, num_workers=1, aspect_ratio_grouping=False, seed=1
    )
    test_loader = build_detection_test_loader(RECORDS, mapper=Mapper(fault), num_workers=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = SimpleTrainer(create_ddp_model(model), loader, optimizer, gather_metric_period=2)
    checkpointer = Checkpointer(model, args.folder, trainer=trainer)
    writer = hooks.PeriodicWriter([JSONWriter(f"{args.folder}/metrics.json")] if is_main_process() else [], 2)
    evaluation = hooks.EvalHook(5, lambda: inference_on_dataset(model, test_loader, Sum()))
    best = hooks.BestCheckpointer(5, checkpointer, "sum/count") if args.best else None
    trainer.register_hooks([FaultHook(fault), hooks.PeriodicCheckpointer(checkpointer, 3), evaluation, best, writer])
    start = checkpointer.resume() + 1 if args.resume else 0
    trainer.train(start, LAST)
    if is_main_process():
        print(f"done from {start} on {get_world_size()} ranks: {model.linear.weight.flatten().tolist()}")


def parse():
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--where")
    parser.add_argument("--how")
    parser.add_argument("--rank", type=int, default=1)
    parser.add_argument("--once", action="store_true")  # not again when it is started again
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--best", action="store_true")
    parser.add_argument("--procs", type=int)
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("--url")
    parser.add_argument("--machines", type=int)
    parser.add_argument("--machine", type=int)
    parser.add_argument("--rendezvous", type=float, default=200)
    parser.add_argument("--slow", type=float)
    parser.add_argument("--grace", type=float, default=60)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse()
    Path(arguments.folder, f"starter{arguments.machine or 0}").write_text(str(os.getpid()))
    launch(
        main,
        0,
        num_machines=arguments.machines,
        machine_rank=arguments.machine,
        dist_url=arguments.url,
        rendezvous_timeout=timedelta(seconds=arguments.rendezvous),
        args=(arguments,),
        timeout=timedelta(seconds=arguments.timeout),
        num_procs_per_machine=arguments.procs,
    )
