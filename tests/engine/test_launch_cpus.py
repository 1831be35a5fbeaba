"""How CPUs are divided among the ranks of a machine."""

import pytest

from hookline.engine import launch_cpus
from hookline.engine.launch_cpus import threads_of_rank


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with 16 CPUs, and a container that may use as many as its file says."""
    monkeypatch.setattr(launch_cpus.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(launch_cpus, "_QUOTA", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(
    ("ranks", "quota", "task_cpus", "is_task", "threads"),
    [
        (8, None, None, False, 2),
        (32, None, None, False, 1),
        (8, "max 100000", None, False, 2),
        (2, "800000 100000", None, False, 4),
        (2, "50000 100000", None, False, 1),
        (8, None, "5", True, 5),  # Slurm's own part of the node, not an eighth of it
        (8, None, "64", True, 16),
        (2, None, "8", False, 8),  # spawned in a task that has the whole node: 16 CPUs for two
        (8, None, None, True, 2),
        (8, None, "", True, 2),
    ],
)
def test_each_rank_has_its_part(machine, ranks, quota, task_cpus, is_task, threads):
    if quota is not None:
        machine.write_text(f"{quota}\n")
    environ = {} if task_cpus is None else {"SLURM_CPUS_PER_TASK": task_cpus}
    assert threads_of_rank(ranks, environ, is_task=is_task) == threads


@pytest.mark.parametrize(("of_node", "threads"), [("128", 16), ("16", 2), (None, 2)])
def test_a_task_that_is_bound_to_cpus_of_its_own_takes_them_all(machine, of_node, threads):
    environ = {} if of_node is None else {"SLURM_CPUS_ON_NODE": of_node}
    assert threads_of_rank(8, environ, is_task=True) == threads
