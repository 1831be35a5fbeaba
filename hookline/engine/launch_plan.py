"""What a launch is asked for and what is decided, and how the variables that decide are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["LaunchError", "LaunchPlan", "LaunchRequest", "RendezvousError", "parse_url", "read_number", "read_port"]


class LaunchError(ValueError):
    """A run cannot be started as asked; the message names the flags or variables and what they would have to be."""


class RendezvousError(LaunchError):
    """The ranks did not come together in time, though nothing is wrong with how this one was started."""


@dataclass(frozen=True)
class LaunchRequest:
    """What a caller of `launch` asked for.

    Attributes:
        num_gpus: Processes per machine with one GPU each; 0 for none, or for what torchrun and srun start.
        num_procs: Processes per machine on the CPU, None if not given.
        num_machines: Machines, None if not given.
        machine_rank: Which of them this is, None if not given.
        dist_url: `tcp://host:port`, or None or "auto".
        launcher: "pytorch", "slurm" or "none" to look no further, None to let the environment decide.
        gpus_here: GPUs that this machine has.
    """

    num_gpus: int = 0
    num_procs: int | None = None
    num_machines: int | None = None
    machine_rank: int | None = None
    dist_url: str | None = None
    launcher: str | None = None
    gpus_here: int = 0


@dataclass(frozen=True)
class LaunchPlan:
    """How a run is started.

    Attributes:
        how: "here" (one process, no group), "spawn" (this program starts the machine's processes) or "join" (this
            process is one of those that torchrun or srun started).
        num_machines: Machines of the run.
        machine_rank: Which of them this is.
        local_size: Processes on this machine.
        world_size: Processes of the run.
        rank: This process's number where it joins, else None.
        local_rank: Its number on its machine where it joins, else None.
        address: Host and port of the rendezvous; None to bind a free port of this machine.
        use_gpu: Whether each process has a GPU: that of its local number, or the only one that it sees.
        reason: One line for the log: what was decided and why.
        by_torchrun: Whether torchrun's own rendezvous is used.
        run: The name of the run where others may have the same address, else "".
    """

    how: str
    num_machines: int
    machine_rank: int
    local_size: int
    world_size: int
    rank: int | None
    local_rank: int | None
    address: tuple[str, int] | None
    use_gpu: bool
    reason: str
    by_torchrun: bool = False
    run: str = ""


def parse_url(url: str) -> tuple[str, int]:
    """Split a rendezvous URL.

    Args:
        url: `tcp://host:port`.

    Returns:
        Host and port.

    Raises:
        LaunchError: If it is another kind of URL.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "tcp" or not parts.hostname or not port or parts.path:
        raise LaunchError(f"--dist-url {url!r}: expected tcp://HOST:PORT with a port from 1 to 65535, or auto")
    return parts.hostname, port


def read_number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    """Read a variable that counts something.

    Args:
        environ: The environment variables.
        name: Name of the variable.
        default: What counts if it is not set; without it that is an error.

    Returns:
        The value, at least 0.

    Raises:
        LaunchError: If it is no such number.
    """
    text = environ.get(name)
    if text is None and default is not None:
        return default
    try:
        value = int(text or "")
    except ValueError:
        value = -1
    if value < 0:
        raise LaunchError(f"{name}={text}: expected a whole number that is not negative")
    return value


def read_port(environ: Mapping[str, str], name: str) -> int:
    """Read a variable that holds a port.

    Args:
        environ: The environment variables.
        name: Name of the variable.

    Returns:
        The port.

    Raises:
        LaunchError: If it is none.
    """
    port = read_number(environ, name)
    if not 0 < port < 65536:
        raise LaunchError(f"{name}={port}: expected a port from 1 to 65535")
    return port
