"""Mask R-CNN that fails where the variable FAULT says, as `where,how,rank,call`: the model of a user's own recipe."""

import os
import signal
import time
from pathlib import Path

import psutil
import torch

from hookline.distributed import get_rank
from hookline.modeling import GeneralizedRCNN

WHERE, HOW, RANK, CALL = (os.environ.get("FAULT") or "nowhere,,0,0").split(",")
plain_save = torch.save


def fail():
    """Note the time, then fail."""
    folder = Path(os.environ["FAULT_FOLDER"])
    (folder / "fault.new").write_text(repr(time.time()))
    os.replace(folder / "fault.new", folder / "fault")
    if HOW == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if HOW == "worker":
        psutil.Process().children()[0].kill()
        return
    if HOW == "raise":
        raise ValueError(f"broken in {WHERE} on purpose")
    for _ in range(600):  # for a signal that the test sends
        time.sleep(0.1)


def save_half(tree, file):
    """Fail in the middle of a file."""
    file.write(b"half of a checkpoint")
    file.flush()
    fail()
    plain_save(tree, file)


class FaultyRCNN(GeneralizedRCNN):
    """Fails in a certain call on a certain rank."""

    def __init__(self, **parts):
        super().__init__(**parts)
        self.calls = {"forward": 0, "evaluation": 0}
        if WHERE == "save" and get_rank() == int(RANK):
            torch.save = save_half

    def forward(self, batched_inputs):
        where = "forward" if self.training else "evaluation"
        self.calls[where] += 1
        if where == WHERE and get_rank() == int(RANK) and self.calls[where] == int(CALL):
            fail()
        return super().forward(batched_inputs)
