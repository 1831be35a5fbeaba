"""Plans for processes that another program has started: torchrun's workers and srun's tasks."""

import re
from collections.abc import Mapping

from hookline.engine.launch_plan import LaunchError, LaunchPlan, LaunchRequest, parse_url, read_number, read_port

__all__ = ["plan_slurm", "plan_torchrun"]

# A job and its steps get their own port from this range, above the system's services and below the ephemeral ports.
_SLURM_PORTS = range(12000, 32000)
_SLURM_NAMES = (
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_STEP_NODELIST",
)


def plan_torchrun(request: LaunchRequest, environ: Mapping[str, str]) -> LaunchPlan:
    """Plan for a process that torchrun started.

    Args:
        request: What the caller asked for.
        environ: The environment variables.

    Returns:
        The plan.

    Raises:
        LaunchError: If variables are missing or contradict the request.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if name not in environ]
    if missing:
        raise LaunchError(
            f"this looks like torchrun (LOCAL_RANK or TORCHELASTIC_RUN_ID is set), but {', '.join(missing)} is not set"
        )
    world_size = read_number(environ, "WORLD_SIZE")
    local_size = read_number(environ, "LOCAL_WORLD_SIZE", world_size)
    machines = read_number(environ, "GROUP_WORLD_SIZE", -(-world_size // local_size))
    return _plan_join(
        request,
        source="torchrun",
        machines=(machines, read_number(environ, "GROUP_RANK", 0)),
        local=(local_size, read_number(environ, "LOCAL_RANK")),
        world=(world_size, read_number(environ, "RANK")),
        address=(environ["MASTER_ADDR"], read_port(environ, "MASTER_PORT")),
        names=("GROUP_WORLD_SIZE", "GROUP_RANK", "LOCAL_WORLD_SIZE"),
        # torchrun's workers see the same GPUs, but with --virtual-local-rank, where all have the local rank 0
        has_own_gpu=_sees_one_gpu(environ) and read_number(environ, "LOCAL_RANK") == 0,
    )


def plan_slurm(request: LaunchRequest, environ: Mapping[str, str]) -> LaunchPlan:
    """Plan for a process that srun started.

    Args:
        request: What the caller asked for.
        environ: The environment variables.

    Returns:
        The plan.

    Raises:
        LaunchError: If variables are missing or contradict the request.
    """
    missing = [name for name in _SLURM_NAMES if name not in environ]
    if missing:
        raise LaunchError(
            f"launcher 'slurm' needs a task of srun, but {', '.join(missing)} is not set: start the program by "
            "`srun python ...`, also inside of an sbatch script"
        )
    machine = read_number(environ, "SLURM_NODEID", 0)
    tasks = _tasks_per_node(environ["SLURM_STEP_TASKS_PER_NODE"])
    if machine >= len(tasks):
        raise LaunchError(f"SLURM_NODEID={machine} is not among the nodes of SLURM_STEP_TASKS_PER_NODE={tasks}")
    total = read_number(environ, "SLURM_STEP_NUM_TASKS")
    _check_against_srun(environ, total, len(tasks))
    job, step = read_number(environ, "SLURM_JOB_ID", 0), read_number(environ, "SLURM_STEP_ID", 0)
    # jobs whose numbers are so far apart share a port, so each goes by its name, too
    port, run = _SLURM_PORTS[(job * 16 + step) % len(_SLURM_PORTS)], f"{job}.{step}"
    if "MASTER_PORT" in environ:
        port, run = read_port(environ, "MASTER_PORT"), ""
    address = environ.get("MASTER_ADDR") or _first_host(environ["SLURM_STEP_NODELIST"])
    if request.dist_url not in (None, "", "auto"):
        (address, port), run = parse_url(str(request.dist_url)), ""
    return _plan_join(
        request,
        source="srun",
        machines=(len(tasks), machine),
        local=(tasks[machine], read_number(environ, "SLURM_LOCALID")),
        world=(total, read_number(environ, "SLURM_PROCID")),
        address=(address, port),
        names=("SLURM_STEP_NUM_NODES", "SLURM_NODEID", "tasks per node"),
        has_own_gpu=_sees_one_gpu(environ),
        run=run,
    )


def _check_against_srun(environ: Mapping[str, str], tasks: int, machines: int) -> None:
    """Refuse what says otherwise than srun.

    Raises:
        LaunchError: Naming both.
    """
    if "TORCHELASTIC_RUN_ID" in environ:
        raise LaunchError(
            "launcher 'slurm' contradicts TORCHELASTIC_RUN_ID: torchrun started this process, as one of several in a "
            "task of srun; leave the launcher out"
        )
    for name, counts in (("NNODES", {machines}), ("WORLD_SIZE", {tasks, machines})):
        if name in environ and read_number(environ, name) not in counts:
            raise LaunchError(
                f"{name}={environ[name]} contradicts srun, which started {tasks} tasks on {machines} machine(s): unset "
                f"{name}, or let it count for itself by --launcher none"
            )


def _plan_join(
    request: LaunchRequest,
    *,
    source: str,
    machines: tuple[int, int],
    local: tuple[int, int],
    world: tuple[int, int],
    address: tuple[str, int],
    names: tuple[str, str, str],
    has_own_gpu: bool,
    run: str = "",
) -> LaunchPlan:
    # flags may repeat what the other program says, not contradict it
    url = request.dist_url
    pairs = [
        ("--num-machines", request.num_machines, names[0], machines[0]),
        ("--machine-rank", request.machine_rank, names[1], machines[1]),
        ("--num-gpus", request.num_gpus or None, names[2], local[0]),
        ("--num-procs", request.num_procs, names[2], local[0]),
        ("--dist-url", parse_url(url) if url not in (None, "", "auto") else None, "the rendezvous", address),
    ]
    for flag, asked, name, found in pairs:
        if asked is not None and asked != found:
            raise LaunchError(
                f"{flag} {asked} contradicts {source}, which started this process with {name}={found}; with launcher "
                "'none' this program starts the processes of its machine by itself"
            )
    use_gpu = _uses_gpu(request, source, local[0], has_own_gpu)
    reason = (
        f"process {world[1]} of {world[0]}, number {local[1]} of {local[0]} on machine {machines[1]} of {machines[0]}, "
        f"on the {'GPU' if use_gpu else 'CPU'} (started by {source})"
    )
    is_alone = world[0] == 1
    return LaunchPlan(
        how="here" if is_alone else "join",
        num_machines=machines[0],
        machine_rank=machines[1],
        local_size=local[0],
        world_size=world[0],
        rank=None if is_alone else world[1],
        local_rank=None if is_alone else local[1],
        address=None if is_alone else address,
        use_gpu=use_gpu,
        reason=reason,
        by_torchrun=source == "torchrun" and not is_alone,
        run=run,
    )


def _sees_one_gpu(environ: Mapping[str, str]) -> bool:
    # as --gpus-per-task=1 gives each task of srun a GPU of its own
    return len([gpu for gpu in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu.strip()]) == 1


def _uses_gpu(request: LaunchRequest, source: str, processes: int, has_own_gpu: bool) -> bool:
    """Tell whether each of the processes has a GPU.

    Raises:
        LaunchError: If there are some, but not for each.
    """
    on_cpu = request.num_procs is not None and not request.num_gpus
    if on_cpu or not request.gpus_here:
        return False
    if request.gpus_here < processes and not has_own_gpu:
        raise LaunchError(
            f"{source} started {processes} processes on this machine, and this one sees {request.gpus_here} GPU(s): "
            f"start as many as there are GPUs, or give each its own (srun --gpus-per-task=1), or run on the CPU by "
            f"--num-procs {processes}"
        )
    return True


def _tasks_per_node(text: str) -> list[int]:
    # Slurm's 2(x3),1 means [2, 2, 2, 1]
    tasks: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise LaunchError(f"SLURM_STEP_TASKS_PER_NODE={text}: expected something like 2(x3),1")
        tasks += [int(match[1])] * int(match[2] or 1)
    return tasks


def _first_host(node_list: str) -> str:
    # Slurm's node[01-03,07],gpu1 begins with node01
    match = re.match(r"(?P<prefix>[^,\[]+)(?:\[(?P<numbers>[^\]]+)\](?P<suffix>[^,\[]*))?", node_list)
    if match is None:
        raise LaunchError(f"SLURM_STEP_NODELIST={node_list}: expected something like node[01-03],gpu1")
    if match["numbers"] is None:
        return match["prefix"]
    first = re.split(r"[-,]", match["numbers"])[0]
    return f"{match['prefix']}{first}{match['suffix']}"
