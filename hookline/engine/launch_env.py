"""Decide from flags and environment how a run is started: a pure function of both.

| what is found | who starts processes | what the numbers count |
| --- | --- | --- |
| `TORCHELASTIC_RUN_ID` or `LOCAL_RANK` | torchrun | `RANK`, `WORLD_SIZE`: processes |
| `SLURM_STEP_NUM_TASKS` above 1, or `launcher="slurm"` | srun | `SLURM_PROCID`, its tasks: processes |
| `NNODES`, `NODE_RANK` | this program, on each machine | machines |
| `RANK`, `WORLD_SIZE` without `LOCAL_RANK` (HFAI) | this program, on each machine | machines |
| nothing | this program | one machine |

`num_machines` and `machine_rank` override what counts machines. Two sources that contradict each other are an error.
"""

from collections.abc import Mapping

from hookline.engine.launch_join import plan_slurm, plan_torchrun
from hookline.engine.launch_plan import LaunchError, LaunchPlan, LaunchRequest, parse_url, read_number, read_port

__all__ = ["LaunchError", "LaunchPlan", "LaunchRequest", "plan_launch"]

_DEFAULT_PORT = 29500
_COUNTS_OF_MACHINES = (("NNODES", "NODE_RANK"), ("WORLD_SIZE", "RANK"))


def plan_launch(request: LaunchRequest, environ: Mapping[str, str]) -> LaunchPlan:
    """Decide how to start.

    Args:
        request: What the caller asked for.
        environ: The environment variables.

    Returns:
        The plan.

    Raises:
        LaunchError: If something is missing, impossible or contradictory.
    """
    environ = {name: value for name, value in environ.items() if value}  # set to nothing is not set
    _check(request)
    if request.launcher not in (None, "none", "pytorch", "slurm"):
        raise LaunchError(f"--launcher {request.launcher!r}: expected 'none', 'pytorch' or 'slurm'")
    if request.launcher == "none":
        return _plan_spawn(request, {})
    if request.launcher == "slurm":
        return plan_slurm(request, environ)
    if "TORCHELASTIC_RUN_ID" in environ or "LOCAL_RANK" in environ:
        return plan_torchrun(request, environ)
    if request.launcher is None and read_number(environ, "SLURM_STEP_NUM_TASKS", 1) > 1:
        return plan_slurm(request, environ)
    if request.launcher == "pytorch" and not (request.num_gpus or request.num_procs or _counts_machines(environ)):
        raise LaunchError(
            "launcher 'pytorch' needs the variables of torchrun, and none is set: start the program by "
            "`torchrun --nproc-per-node=N ...`, or ask for --num-gpus or --num-procs"
        )
    return _plan_spawn(request, environ)


def _counts_machines(environ: Mapping[str, str]) -> bool:
    return any(size in environ for size, _ in _COUNTS_OF_MACHINES)


def _check(request: LaunchRequest) -> None:
    for name in ("num_gpus", "num_procs", "num_machines", "machine_rank"):
        value = getattr(request, name)
        least = 0 if name in ("num_gpus", "machine_rank") else 1
        if value is not None and value < least:
            raise LaunchError(f"--{name.replace('_', '-')} {value}: expected at least {least}")
    if request.num_gpus and request.num_procs is not None and request.num_procs != request.num_gpus:
        raise LaunchError(
            f"--num-gpus {request.num_gpus} and --num-procs {request.num_procs} exclude each other: processes have a "
            "GPU each, or run on the CPU"
        )
    if request.num_gpus > request.gpus_here:
        raise LaunchError(
            f"{request.num_gpus} GPUs were asked for (--num-gpus), this machine has {request.gpus_here}; several "
            "processes on the CPU are asked for by --num-procs"
        )
    if request.dist_url not in (None, "", "auto"):
        parse_url(str(request.dist_url))  # also where one process alone has no use for it


def _plan_spawn(request: LaunchRequest, environ: Mapping[str, str]) -> LaunchPlan:
    machines, machine, source = _machines(request, environ)
    if machines == 1 and machine > 0:
        raise LaunchError(f"machine rank {machine} of a single machine ({source}): give the number of machines, too")
    if not 0 <= machine < machines:
        raise LaunchError(f"machine rank {machine} of {machines} machines ({source}): expected 0 to {machines - 1}")
    local_size = request.num_gpus or request.num_procs or 1
    world_size = machines * local_size
    address = _address(request.dist_url, environ, needs_host=machines > 1) if world_size > 1 else None
    kind = "GPU" if request.num_gpus else "CPU"
    reason = f"{machines} machine(s) with {local_size} {kind} process(es) each, this is machine {machine} ({source})"
    if world_size > 1 and request.gpus_here and not request.num_gpus and request.num_procs is None:
        reason += f"; the GPUs here ({request.gpus_here}) are used with --num-gpus"
    return LaunchPlan(
        how="spawn" if world_size > 1 else "here",
        num_machines=machines,
        machine_rank=machine,
        local_size=local_size,
        world_size=world_size,
        rank=None,
        local_rank=None,
        address=address,
        use_gpu=bool(request.num_gpus),
        reason=reason,
    )


def _machines(request: LaunchRequest, environ: Mapping[str, str]) -> tuple[int, int, str]:
    # number of machines, this one's rank, and who says so
    if request.num_machines is not None or request.machine_rank is not None:
        machines = 1 if request.num_machines is None else request.num_machines
        if machines > 1 and request.machine_rank is None:
            raise LaunchError(f"--num-machines {machines} needs --machine-rank, from 0 to {machines - 1}")
        return machines, request.machine_rank or 0, "--num-machines, --machine-rank"
    found: dict[str, tuple[int, int]] = {}
    for size, rank in _COUNTS_OF_MACHINES:
        if size in environ:
            machines = read_number(environ, size)
            if machines < 1:
                raise LaunchError(f"{size}={machines}: expected at least 1")
            if machines > 1 and rank not in environ:
                raise LaunchError(f"{size}={machines} needs {rank}, from 0 to {machines - 1}")
            found[f"{size}={machines}, {rank}={environ.get(rank, 0)}"] = (machines, read_number(environ, rank, 0))
    if len(set(found.values())) > 1:
        raise LaunchError(
            f"the environment contradicts itself about the machines: {' but '.join(found)}; unset one of them, or give "
            "--num-machines and --machine-rank"
        )
    for source, (machines, machine) in found.items():
        return machines, machine, source
    for size, rank in _COUNTS_OF_MACHINES:
        if rank in environ and (rank == "RANK" or read_number(environ, rank)):  # some clusters always set NODE_RANK=0
            raise LaunchError(f"{rank}={environ[rank]} needs {size}, the number of machines")
    return 1, 0, "nothing else was asked for"


def _address(url: str | None, environ: Mapping[str, str], needs_host: bool) -> tuple[str, int] | None:
    # where the ranks meet: the URL, else the environment, else a free port of this machine
    if url not in (None, "", "auto"):
        return parse_url(str(url))
    port_name = next((name for name in ("MASTER_PORT", "PORT") if name in environ), None)
    if not needs_host:
        return ("127.0.0.1", read_port(environ, port_name)) if port_name is not None else None
    host = environ.get("MASTER_ADDR") or environ.get("MASTER_IP")
    if not host:
        raise LaunchError(
            "several machines need the address of machine 0: --dist-url tcp://HOST:PORT, or MASTER_ADDR and MASTER_PORT"
        )
    return host, read_port(environ, port_name) if port_name is not None else _DEFAULT_PORT
