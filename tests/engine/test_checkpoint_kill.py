"""A process killed while it saves: what is on the disk can always be resumed."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from hookline.engine.checkpoint import Checkpointer

SAVES_FOR_EVER = """
    import sys
    import torch
    from torch import nn
    from hookline.engine.checkpoint import Checkpointer

    class Steps:
        def __init__(self):
            self.weight = torch.zeros(500_000)
        def state_dict(self):
            return {"weight": self.weight}
        def load_state_dict(self, state):
            self.weight = state["weight"]

    model, steps = nn.Linear(300, 300), Steps()
    checkpointer = Checkpointer(model, sys.argv[1], asynchronous=sys.argv[2] == "async", max_to_keep=2, steps=steps)
    start = checkpointer.resume() + 1
    assert steps.weight.eq(start).all(), (start, steps.weight)
    print("started", start, flush=True)
    for iteration in range(start, 10**6):
        steps.weight += 1
        with torch.no_grad():
            model.weight.fill_(iteration)
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_kills_at_random_moments(tmp_path, mode):
    code, rng, reached, leftovers = textwrap.dedent(SAVES_FOR_EVER), random.Random(mode), [], 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), mode], stdout=subprocess.PIPE, text=True)
        word, _, start = process.stdout.readline().partition(" ")
        assert word == "started"
        reached.append(int(start))
        time.sleep(rng.uniform(0.05, 0.8))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        files = os.listdir(tmp_path)
        leftovers += sum(name.endswith(".tmp") for name in files)
        assert 1 <= sum(name.endswith(".pth") for name in files) <= 3
        assert not [name for name in files if "damaged" in name]
    assert reached == sorted(reached)
    assert reached[-1] > 0
    assert leftovers > 0  # else no kill hit a write, and the test shows little

    from torch import nn

    checkpointer = Checkpointer(nn.Linear(300, 300), tmp_path)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
    last = checkpointer.resume()
    assert last >= reached[-1]
    assert checkpointer.model.weight.eq(last).all()
