"""Two hosts with their own addresses: four ways to start a run on both, and a cable that is cut in the middle.

The hosts are network namespaces made by `../shared/tools/hosts`, which needs root.
"""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from child_processes import left_of, session
from hookline.data.datasets.synthetic_balloons import generate_balloons
from small_runs import PROGRAM, RECIPE, SMALL

REPO = Path(__file__).parents[2]
TOOL = REPO.parent / "shared" / "tools" / "hosts"
TIMEOUT_S = 10
ARGUMENTS = ["--config-file", RECIPE, "--no-validate", *SMALL, f"train.env.timeout_s={TIMEOUT_S}"]
TRAIN = [sys.executable, PROGRAM]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", autouse=True)
def hosts():
    """Two hosts, which are gone afterwards."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not TOOL.is_file():
        pytest.skip(f"there is no {TOOL}")
    there = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    if "h0" in there:
        pytest.skip(f"hosts are up already, perhaps for somebody else's test; `{TOOL} down` removes them")
    try:
        subprocess.run([TOOL, "up", "2"], check=True, capture_output=True)
        yield
    finally:
        subprocess.run([TOOL, "down"], check=True, capture_output=True)
        # a connection that was cut keeps its host alive in the kernel for minutes, and with it the end of the cable
        for link in Path("/sys/class/net").glob("hl-v*"):
            subprocess.run(["ip", "link", "del", link.name], check=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    generate_balloons(root, num_train=4, num_val=3)
    return root


@pytest.fixture
def start(data, tmp_path):
    """Start a command on a host; what still runs at the end of the test is killed."""
    started = []
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NNODES", "NODE_RANK")
    free = {name: value for name, value in os.environ.items() if name not in names}
    free |= {"HOOKLINE_DATASETS": str(data), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}

    def start(host, command, **environ):
        output = tmp_path / f"host{host}_{len(started)}.txt"
        with output.open("w") as log:
            process = subprocess.Popen(
                [TOOL, "exec", str(host), *command] if host is not None else command,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**free, **environ},
            )
        started.append(process)
        return process, output

    yield start
    for process in started:
        for one in session(process.pid):
            one.kill()
        process.wait()


def by_flags(machine, folder, *more):
    place = ["--num-machines", "2", "--machine-rank", str(machine), "--dist-url", "tcp://10.77.0.1:29601"]
    return [*TRAIN, *ARGUMENTS, "--work-dir", str(folder), "--num-procs", "1", *place, *more], {}


def by_nodes(machine, folder, *more):
    command = [*TRAIN, *ARGUMENTS, "--work-dir", str(folder), "--num-procs", "1", *more]
    return command, {"NNODES": "2", "NODE_RANK": str(machine), "MASTER_ADDR": "10.77.0.1", "PORT": "29602"}


def as_hfai(machine, folder, *more):
    command = [*TRAIN, *ARGUMENTS, "--work-dir", str(folder), "--num-procs", "1", *more]
    return command, {"WORLD_SIZE": "2", "RANK": str(machine), "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29603"}


def by_torchrun(machine, folder, *more):
    place = ["--nnodes=2", f"--node-rank={machine}", "--master-addr=10.77.0.1", "--master-port=29604"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", *place, PROGRAM]
    return [*command, *ARGUMENTS, "--work-dir", str(folder), *more], {}


def start_both(start, way, folder, *more):
    """Start a run on both hosts: [(process, its output), ...]."""
    both = []
    for machine in (0, 1):
        command, environ = way(machine, folder, *more)
        both.append(start(machine, command, **environ))
    return both


def finish(run):
    for process, log in run:
        assert process.wait(timeout=600) == 0, log.read_text()
    for process, _ in run:
        assert not left_of(process.pid, seconds=5.0)


def weights(folder) -> str:
    """A hash of the final model."""
    state = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].numpy().tobytes())
    return digest.hexdigest()


def test_four_ways_to_start_give_one_result(start, tmp_path):
    ways = (by_flags, by_nodes, as_hfai, by_torchrun)
    for way in ways:
        finish(start_both(start, way, tmp_path / way.__name__, "train.max_iter=3"))
    one = tmp_path / "one_machine"
    finish([start(None, [*TRAIN, *ARGUMENTS, "--work-dir", str(one), "--num-procs", "2", "train.max_iter=3"])])
    found = {weights(tmp_path / way.__name__) for way in ways}
    assert found == {weights(one)}


def lines(file) -> int:
    return file.read_text().count("\n") if file.exists() else 0


@pytest.mark.parametrize("way", [by_flags, by_torchrun])
def test_a_cut_cable_ends_both_sides_and_the_run_goes_on(start, tmp_path, way):
    long = ["train.max_iter=20", "train.checkpointer.period=5"]
    folder = tmp_path / "cut"
    run = start_both(start, way, folder, *long)
    wait_until(lambda: lines(folder / "metrics.json") >= 7, run)
    subprocess.run([TOOL, "cut", "1"], check=True)
    cut_at = time.monotonic()
    try:
        for process, log in run:
            left_s = TIMEOUT_S + 60 - (time.monotonic() - cut_at)  # for ending, on a machine that is busy
            assert process.wait(timeout=max(1.0, left_s)) not in (0, -signal.SIGKILL), log.read_text()
    finally:
        subprocess.run([TOOL, "mend", "1"], check=True)
    print(f"{way.__name__}: both sides had ended {time.monotonic() - cut_at:.1f} s after the cut, {TIMEOUT_S} s set")
    for process, _ in run:
        assert not left_of(process.pid, seconds=5.0)
    here, there = (log.read_text() for _, log in run)
    assert re.search(rf"error: .*rank 0 waited .*{TIMEOUT_S} s \(train\.env\.timeout_s\)", here), here
    assert "rank(s) 1 " in here
    assert re.search(rf"error: .*rank 1 waited .*{TIMEOUT_S} s \(train\.env\.timeout_s\)", there), there
    assert "the store where the ranks met, at 10.77.0.1:2960" in there.lower()
    assert lines(folder / "metrics.json") < 20
    finish(start_both(start, way, folder, *long, "--resume"))
    finish(start_both(start, way, tmp_path / "whole", *long))
    assert weights(folder) == weights(tmp_path / "whole")


PATIENT = f"""
import sys, time
from datetime import timedelta
from hookline.distributed import is_main_process, synchronize
from hookline.engine.launch import launch

def main():
    print("waiting", flush=True)
    time.sleep(4 if is_main_process() else 0)  # the cable is cut meanwhile
    synchronize()

if __name__ == "__main__":
    times = dict(timeout=timedelta(seconds={TIMEOUT_S}), eval_timeout=timedelta(hours=1))
    url = "tcp://10.77.0.1:29609"
    launch(main, 0, num_machines=2, machine_rank=int(sys.argv[1]), dist_url=url, num_procs_per_machine=1, **times)
"""


def test_a_cable_that_is_cut_while_ranks_wait_patiently(start, tmp_path):
    (tmp_path / "patient.py").write_text(PATIENT)
    run = [start(machine, [sys.executable, str(tmp_path / "patient.py"), str(machine)]) for machine in (0, 1)]
    wait_until(lambda: all("waiting" in log.read_text() for _, log in run), run)
    subprocess.run([TOOL, "cut", "1"], check=True)
    try:
        for process, log in run:
            assert process.wait(timeout=TIMEOUT_S + 60) == 1, log.read_text()
    finally:
        subprocess.run([TOOL, "mend", "1"], check=True)
    for process, _ in run:
        assert not left_of(process.pid, seconds=5.0)
    here, there = (log.read_text() for _, log in run)
    assert f"rank(s) 1 was not heard for {TIMEOUT_S} s (train.env.timeout_s)" in here
    assert f"at 10.77.0.1:29609, was not heard for {TIMEOUT_S} s (train.env.timeout_s)" in there


def wait_until(condition, run, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert all(process.poll() is None for process, _ in run), [log.read_text() for _, log in run]
        time.sleep(0.05)
