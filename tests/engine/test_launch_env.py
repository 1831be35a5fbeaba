"""Every way to be started, as a table of flags, variables and what follows."""

import pytest

from hookline.engine.launch_env import plan_launch
from hookline.engine.launch_join import _first_host, _tasks_per_node
from hookline.engine.launch_plan import LaunchError, LaunchRequest

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29400",
}
SRUN = {
    "SLURM_JOB_ID": "100",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "2",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_STEP_NODELIST": "node[07-08],other3",
}
BATCH_SHELL = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "1"}
HFAI = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "10.1.1.1", "MASTER_IP": "10.1.1.1", "MASTER_PORT": "2223"}
MMDET = {"NNODES": "2", "NODE_RANK": "0", "PORT": "29501", "MASTER_ADDR": "10.2.2.2"}

GPUS = {"gpus_here": 8}


@pytest.mark.parametrize(
    ("flags", "environ", "how", "machines", "machine", "local", "world", "address"),
    [
        # one machine
        ({}, {}, "here", 1, 0, 1, 1, None),
        ({"num_gpus": 1}, {}, "here", 1, 0, 1, 1, None),
        ({"num_gpus": 8}, {}, "spawn", 1, 0, 8, 8, None),
        ({"num_procs": 2}, {}, "spawn", 1, 0, 2, 2, None),
        ({"num_procs": 1}, {"MASTER_PORT": "1234"}, "here", 1, 0, 1, 1, None),
        ({}, {"NODE_RANK": "0"}, "here", 1, 0, 1, 1, None),
        # what is set to nothing is not set
        ({}, {"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": "", "SLURM_STEP_NUM_TASKS": ""}, "here", 1, 0, 1, 1, None),
        ({"num_procs": 2}, {"MASTER_PORT": "", "PORT": "1234", "NNODES": ""}, "spawn", 1, 0, 2, 2, ("127.0.0.1", 1234)),
        ({"num_procs": 2, "dist_url": "auto"}, {}, "spawn", 1, 0, 2, 2, None),
        ({"num_procs": 2}, {"PORT": "1234"}, "spawn", 1, 0, 2, 2, ("127.0.0.1", 1234)),
        ({"num_procs": 2}, {"PORT": "1", "MASTER_PORT": "2"}, "spawn", 1, 0, 2, 2, ("127.0.0.1", 2)),
        ({"num_procs": 2, "dist_url": "tcp://h:5"}, {"PORT": "1"}, "spawn", 1, 0, 2, 2, ("h", 5)),
        ({"num_procs": 2, "dist_url": "tcp://[::1]:5"}, {}, "spawn", 1, 0, 2, 2, ("::1", 5)),
        # several machines by flags, which override the environment
        (
            {"num_gpus": 4, "num_machines": 2, "machine_rank": 1, "dist_url": "tcp://h:5"},
            {},
            "spawn",
            2,
            1,
            4,
            8,
            ("h", 5),
        ),
        ({"num_procs": 1, "num_machines": 2, "machine_rank": 1}, MMDET, "spawn", 2, 1, 1, 2, ("10.2.2.2", 29501)),
        ({"num_procs": 2, "num_machines": 1}, {"NNODES": "2", "NODE_RANK": "0"}, "spawn", 1, 0, 2, 2, None),
        # several machines by the environment
        ({"num_gpus": 8}, MMDET, "spawn", 2, 0, 8, 16, ("10.2.2.2", 29501)),
        ({"num_gpus": 8}, HFAI, "spawn", 2, 1, 8, 16, ("10.1.1.1", 2223)),
        ({}, HFAI, "spawn", 2, 1, 1, 2, ("10.1.1.1", 2223)),
        ({"num_gpus": 8}, {**HFAI, "NNODES": "2", "NODE_RANK": "1"}, "spawn", 2, 1, 8, 16, ("10.1.1.1", 2223)),
        ({"num_gpus": 8}, {"WORLD_SIZE": "1", "RANK": "0"}, "spawn", 1, 0, 8, 8, None),
        ({}, {"NNODES": "2", "NODE_RANK": "1", "MASTER_IP": "h"}, "spawn", 2, 1, 1, 2, ("h", 29500)),
        ({"launcher": "pytorch"}, MMDET, "spawn", 2, 0, 1, 2, ("10.2.2.2", 29501)),
        ({"launcher": "none"}, MMDET, "here", 1, 0, 1, 1, None),
        # torchrun
        ({}, TORCHRUN, "join", 2, 1, 4, 8, ("10.0.0.1", 29400)),
        ({"num_gpus": 4, "num_machines": 2, "machine_rank": 1}, TORCHRUN, "join", 2, 1, 4, 8, ("10.0.0.1", 29400)),
        ({"launcher": "pytorch"}, {**TORCHRUN, **MMDET}, "join", 2, 1, 4, 8, ("10.2.2.2", 29400)),
        ({"launcher": "none"}, TORCHRUN, "here", 1, 0, 1, 1, None),
        # Slurm
        ({}, SRUN, "join", 3, 2, 1, 5, ("node07", 12000 + 1602)),
        ({}, {**SRUN, "MASTER_PORT": "77", "MASTER_ADDR": "h"}, "join", 3, 2, 1, 5, ("h", 77)),
        ({}, {**SRUN, "NNODES": "3", "WORLD_SIZE": "5"}, "join", 3, 2, 1, 5, ("node07", 12000 + 1602)),
        ({"launcher": "slurm", "dist_url": "auto"}, SRUN, "join", 3, 2, 1, 5, ("node07", 12000 + 1602)),
        ({"launcher": "none", "num_procs": 2}, SRUN, "spawn", 1, 0, 2, 2, None),
        ({"num_procs": 2}, BATCH_SHELL, "spawn", 1, 0, 2, 2, None),
        ({}, {**SRUN, "SLURM_STEP_NUM_TASKS": "1"}, "here", 1, 0, 1, 1, None),
    ],
)
def test_plans(flags, environ, how, machines, machine, local, world, address):
    plan = plan_launch(LaunchRequest(**{**GPUS, **flags}), environ)
    assert (plan.how, plan.num_machines, plan.machine_rank) == (how, machines, machine)
    assert (plan.local_size, plan.world_size, plan.address) == (local, world, address)
    assert plan.reason


def test_ranks_of_joined_processes():
    plan = plan_launch(LaunchRequest(gpus_here=4), TORCHRUN)
    assert (plan.rank, plan.local_rank, plan.use_gpu, plan.by_torchrun) == (5, 1, True, True)
    plan = plan_launch(LaunchRequest(num_procs=4, gpus_here=4), TORCHRUN)
    assert plan.use_gpu is False
    plan = plan_launch(LaunchRequest(), SRUN)
    assert (plan.rank, plan.local_rank, plan.use_gpu, plan.by_torchrun) == (4, 0, False, False)


@pytest.mark.parametrize(
    ("gpus_here", "visible", "flags", "use_gpu"),
    [
        (0, None, {}, False),
        (8, None, {}, True),
        (8, None, {"num_procs": 4}, False),
        (1, None, {"num_procs": 4}, False),
    ],
)
@pytest.mark.parametrize("started_by", ["torchrun", "srun"])
def test_whether_joined_processes_have_gpus(gpus_here, visible, flags, use_gpu, started_by):
    srun = {**SRUN, "SLURM_STEP_TASKS_PER_NODE": "4(x3)", "SLURM_STEP_NUM_TASKS": "12"}
    environ = {"torchrun": TORCHRUN, "srun": srun}[started_by]
    environ = environ if visible is None else {**environ, "CUDA_VISIBLE_DEVICES": visible}
    assert plan_launch(LaunchRequest(gpus_here=gpus_here, **flags), environ).use_gpu is use_gpu


@pytest.mark.parametrize(
    "environ",
    [
        {**SRUN, "SLURM_STEP_TASKS_PER_NODE": "4(x3)", "SLURM_STEP_NUM_TASKS": "12"},  # --gpus-per-task=1
        {**TORCHRUN, "LOCAL_RANK": "0"},  # --virtual-local-rank
    ],
)
def test_processes_that_see_their_own_gpu_alone_use_it(environ):
    assert plan_launch(LaunchRequest(gpus_here=1), {**environ, "CUDA_VISIBLE_DEVICES": "3"}).use_gpu is True


def test_cpu_processes_beside_gpus_are_told():
    assert "the GPUs here (8) are used with --num-gpus" in plan_launch(LaunchRequest(gpus_here=8), HFAI).reason
    assert "--num-gpus" not in plan_launch(LaunchRequest(num_procs=2, gpus_here=8), {}).reason


def test_steps_of_a_job_have_their_own_ports():
    ports = {
        plan_launch(LaunchRequest(), {**SRUN, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}).address
        for job in range(50)
        for step in range(4)
    }
    assert len(ports) == 200


def test_jobs_that_share_a_port_go_by_their_names():
    plans = [plan_launch(LaunchRequest(), {**SRUN, "SLURM_JOB_ID": job}) for job in ("100", "1350")]
    assert plans[0].address == plans[1].address
    assert [plan.run for plan in plans] == ["100.2", "1350.2"]
    assert plan_launch(LaunchRequest(), {**SRUN, "MASTER_PORT": "77"}).run == ""
    assert plan_launch(LaunchRequest(dist_url="tcp://h:5"), SRUN).run == ""


@pytest.mark.parametrize(
    ("flags", "environ", "message"),
    [
        ({"num_gpus": 9}, {}, r"9 GPUs were asked for \(--num-gpus\), this machine has 8.*--num-procs"),
        ({"num_gpus": 2, "num_procs": 3}, {}, "--num-gpus 2 and --num-procs 3 exclude each other"),
        ({"num_procs": 0}, {}, "--num-procs 0: expected at least 1"),
        ({"num_machines": 0}, {}, "--num-machines 0: expected at least 1"),
        ({"launcher": "pytorch"}, {}, "launcher 'pytorch' needs the variables of torchrun"),
        ({"machine_rank": -1}, {}, "--machine-rank -1: expected at least 0"),
        ({"launcher": "mpi"}, {}, "--launcher 'mpi': expected 'none', 'pytorch' or 'slurm'"),
        ({"num_machines": 2}, {}, "--num-machines 2 needs --machine-rank, from 0 to 1"),
        ({"num_machines": 2, "machine_rank": 2}, {}, "machine rank 2 of 2 machines.*expected 0 to 1"),
        ({"machine_rank": 1}, {}, "machine rank 1 of a single machine .*number of machines, too"),
        ({"num_machines": 2, "machine_rank": 0}, {}, "need the address of machine 0: --dist-url"),
        ({"num_procs": 2, "dist_url": "tcp://h"}, {}, "--dist-url 'tcp://h': expected tcp://HOST:PORT"),
        ({"num_procs": 2, "dist_url": "env://"}, {}, "expected tcp://HOST:PORT"),
        ({"dist_url": "localhost:29500"}, {}, "--dist-url 'localhost:29500': expected tcp://HOST:PORT"),
        ({"num_procs": 2, "dist_url": "tcp://h:99999"}, {}, "expected tcp://HOST:PORT"),
        ({"num_procs": 2}, {"PORT": "x"}, "PORT=x: expected a whole number"),
        ({"num_procs": 2}, {"MASTER_PORT": "70000"}, "MASTER_PORT=70000: expected a port"),
        ({}, {"NNODES": "2"}, "NNODES=2 needs NODE_RANK"),
        ({}, {"WORLD_SIZE": "2"}, "WORLD_SIZE=2 needs RANK"),
        ({}, {"RANK": "2"}, "RANK=2 needs WORLD_SIZE, the number of machines"),
        ({}, {"RANK": "0"}, "RANK=0 needs WORLD_SIZE, the number of machines"),
        ({}, {"NODE_RANK": "1"}, "NODE_RANK=1 needs NNODES, the number of machines"),
        ({}, {"NNODES": "0"}, "NNODES=0: expected at least 1"),
        ({}, {**HFAI, "NNODES": "3", "NODE_RANK": "1"}, "NNODES=3, NODE_RANK=1 but WORLD_SIZE=2, RANK=1"),
        ({}, {"LOCAL_RANK": "0"}, "RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT is not set"),
        ({"num_machines": 3}, TORCHRUN, "--num-machines 3 contradicts torchrun.*GROUP_WORLD_SIZE=2"),
        ({"num_gpus": 8}, TORCHRUN, "--num-gpus 8 contradicts torchrun.*LOCAL_WORLD_SIZE=4"),
        ({"dist_url": "tcp://h:1"}, TORCHRUN, "--dist-url .* contradicts torchrun"),
        ({"num_gpus": 8}, SRUN, "--num-gpus 8 contradicts srun.*tasks per node=1.*launcher 'none'"),
        ({"gpus_here": 1}, TORCHRUN, r"torchrun started 4 processes.* sees 1 GPU\(s\).*--num-procs 4"),
        ({"gpus_here": 1}, {**TORCHRUN, "CUDA_VISIBLE_DEVICES": "0"}, r"started 4 processes.* sees 1 GPU"),
        ({"launcher": "slurm"}, {**SRUN, **TORCHRUN}, "'slurm' contradicts TORCHELASTIC_RUN_ID: torchrun started"),
        ({}, {**SRUN, "NNODES": "2"}, r"NNODES=2 contradicts srun.* 5 tasks on 3 machine\(s\).*--launcher none"),
        ({}, {**SRUN, "WORLD_SIZE": "7"}, r"WORLD_SIZE=7 contradicts srun.* 5 tasks on 3 machine\(s\)"),
        ({"gpus_here": 2}, {**TORCHRUN, "CUDA_VISIBLE_DEVICES": "0,1"}, r"started 4 processes.* sees 2 GPU"),
        ({"launcher": "slurm"}, BATCH_SHELL, "SLURM_STEP_NUM_TASKS.* is not set: start the program by `srun"),
        ({}, {**SRUN, "SLURM_NODEID": "9"}, "SLURM_NODEID=9 is not among the nodes"),
        ({}, {**SRUN, "SLURM_STEP_TASKS_PER_NODE": "many"}, "SLURM_STEP_TASKS_PER_NODE=many"),
    ],
)
def test_refusals(flags, environ, message):
    with pytest.raises(LaunchError, match=message):
        plan_launch(LaunchRequest(**{**GPUS, **flags}), environ)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("vm", "vm"),
        ("a,b,c", "a"),
        ("node[01-03,07],gpu1", "node01"),
        ("n[5,9]", "n5"),
        ("rack1-[12-20]-ib", "rack1-12-ib"),
        ("node-1.example.org", "node-1.example.org"),
    ],
)
def test_first_hosts(text, first):
    assert _first_host(text) == first


def test_tasks_per_node():
    assert _tasks_per_node("2(x3),1") == [2, 2, 2, 1]
    assert _tasks_per_node("8") == [8]
