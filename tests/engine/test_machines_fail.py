"""Two and three 'machines' on the loopback interface that are started wrongly, or of which one fails in mid-run."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

import failing_run
from child_processes import ends_of, free_port

PROGRAM = failing_run.__file__
BOUND_S = 60.0  # from the failure, or the last start, to the end of all; on an idle machine 3 to 15 s
START_S = 240.0


def machine(folder, number, port, *arguments, machines=2, procs=1, **changes) -> subprocess.Popen:
    place = ["--machines", str(machines), "--machine", str(number), "--url", f"tcp://127.0.0.1:{port}"]
    return subprocess.Popen(
        [sys.executable, PROGRAM, str(folder), *place, "--procs", str(procs), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **changes},
    )


def ends(programs, folder=None) -> list[tuple[int, str]]:
    """Wait for all, within the bound from the moment of the failure."""
    if folder is not None:
        deadline = time.monotonic() + START_S
        while (
            not (folder / "fault").exists()
            and time.monotonic() < deadline
            and all(program.poll() is None for program in programs)
        ):
            time.sleep(0.05)
    found = ends_of(programs, START_S if folder is None else BOUND_S)
    assert folder is None or (folder / "fault").exists(), f"the failure never began: {found}"
    return found


def last_line(output: str) -> str:
    return [line for line in output.splitlines() if line.strip()][-1]


@pytest.mark.slow
def test_a_machine_rank_given_twice_ends_all_at_once(tmp_path):
    port = free_port()
    # nobody waits for the time-out of the rendezvous
    programs = [machine(tmp_path, number, port, "--rendezvous", "3600", machines=3) for number in (0, 1, 1)]
    for code, output in ends(programs):
        assert code == 1
        assert re.search(r"LaunchError: rendezvous at 127.0.0.1:\d+: rank 1 came twice; give each", last_line(output))
        assert "--machine-rank (NODE_RANK, RANK)" in output


@pytest.mark.slow
def test_machine_0_twice_on_one_host_is_a_port_in_use(tmp_path):
    port = free_port()
    first = machine(tmp_path, 0, port, "--rendezvous", "25")
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    (first_code, first_output), (code, output) = ends([first, machine(tmp_path, 0, port)])
    assert code == first_code == 1
    assert f"LaunchError: port {port} is in use on this machine" in last_line(output)
    assert "--machine-rank" in last_line(output)
    assert "1 of 2 ranks came within 25 s, missing: 1" in last_line(first_output)


@pytest.mark.slow
def test_other_numbers_of_machines_contradict_each_other(tmp_path):
    port = free_port()
    for code, output in ends([machine(tmp_path, 0, port, machines=2), machine(tmp_path, 1, port, machines=3)]):
        assert code == 1
        assert re.search(r"rank \d expects [23] ranks on the CPU by gloo, another one expects [23] ranks on", output)
        assert "the same --num-machines" in last_line(output)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (1, r"could not reach the rendezvous at 127.0.0.1:\d+ within 3 s .*refused.*: is machine 0 started"),
        (0, r"rendezvous at 127.0.0.1:\d+: 1 of 2 ranks came within 3 s, missing: 1"),
    ],
)
def test_a_machine_that_waits_in_vain_says_for_whom(tmp_path, number, told):
    ((code, output),) = ends([machine(tmp_path, number, free_port(), "--rendezvous", "3")])
    assert code == 1
    assert re.search(f"RendezvousError: {told}", last_line(output)), output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dead", "told"),
    [
        (1, r"rank 0 ended because rank 1 on \S+ failed before: the program that had started it was killed"),
        (
            0,
            r"rank 1 lost the connection to the others\. The store where the ranks met, at 127\S+, cannot be asked",
        ),
    ],
)
def test_the_starter_of_a_machine_is_killed(tmp_path, dead, told):
    """Its ranks follow it; the other machine ends with a line that names what is gone."""
    port = free_port()
    fault = ["--where", "hook", "--how", "starter"]
    programs = [machine(tmp_path, n, port, *fault, "--rank", str(dead)) for n in (0, 1)]
    results = ends(programs, tmp_path)
    assert results[dead][0] == -signal.SIGKILL
    code, output = results[1 - dead]
    assert code == 1, output
    assert re.search(told, last_line(output)), output
    assert output.count("stops at iteration") == 1


@pytest.mark.slow
def test_the_other_machine_names_the_cause(tmp_path):
    port = free_port()
    fault = ["--where", "forward", "--how", "raise", "--rank", "1"]
    (code, output), (other_code, other_output) = ends([machine(tmp_path, n, port, *fault) for n in (0, 1)], tmp_path)
    assert code == other_code == 1
    assert last_line(other_output) == "ValueError: broken in forward on purpose"
    host = re.escape(socket.gethostname())
    cause = rf"rank 0 ended because rank 1 on {host} failed before: ValueError: broken in forward on purpose"
    assert re.search(cause, last_line(output)), output


@pytest.mark.slow
def test_a_rank_that_is_killed_on_another_machine_is_named(tmp_path):
    """Its starter tells; what its neighbour says, which the starter ends, is not taken for the cause."""
    port = free_port()
    fault = ["--where", "forward", "--how", "kill", "--rank", "3", "--slow", "8"]
    programs = [machine(tmp_path, n, port, *fault, procs=2) for n in (0, 1)]
    (code, output), (other_code, other_output) = ends(programs, tmp_path)
    assert code == other_code == 1
    death = r"was killed by SIGKILL; the system may have run out of memory \(see dmesg\)"
    cause = rf"LostContactError: rank [01] ended because rank 3 on \S+ failed before: it {death}"
    assert re.search(cause, output), output
    assert re.search(rf"RankFailedError: rank 3 {death}", last_line(other_output)), other_output


@pytest.mark.slow
def test_a_rank_that_hangs_on_another_machine_is_ended(tmp_path):
    """It waits outside of any collective, where nothing tells it that the others are gone."""
    port = free_port()
    fault = ["--where", "forward", "--how", "hang", "--rank", "1", "--timeout", "6", "--grace", "2"]
    (code, output), (other_code, other_output) = ends([machine(tmp_path, n, port, *fault) for n in (0, 1)], tmp_path)
    assert code == other_code == 1
    assert re.search(r"rank 0 waited 6 s \(train\.env\.\w+\) for rank\(s\) 1 on \S+ in a", last_line(output)), output
    assert re.search(r"LostContactError: rank 1 (lost|ended because rank 0)", last_line(other_output)), other_output
