"""What `default_setup` does where machines share no folder, and which device a rank gets."""

import pytest
import torch

import sharded_runs
from hookline import distributed as hd
from hookline.config import ConfigError
from hookline.engine import defaults
from hookline.engine.defaults import default_device

SCRIPT = """
from types import SimpleNamespace
from omegaconf import OmegaConf
from hookline.engine.defaults import default_setup
from hookline.engine.logger import close_logger

def main(rank, folder):
    output = folder / f"machine{rank}" / "work" / "run"
    if rank == 2:
        output.parent.parent.write_text("in the way")
    cfg = OmegaConf.create({"train": {"output_dir": str(output), "seed": 0}})
    try:
        default_setup(cfg, SimpleNamespace(resume=False))
    except OSError as error:
        return str(error)
    finally:
        close_logger()
    return sorted(path.name for path in output.iterdir())
"""


def test_a_machine_that_does_not_share_the_folder_keeps_its_logs(tmp_path):
    first, second, third = sharded_runs.on_ranks(SCRIPT, tmp_path / "ranks", 3)
    assert first == ["config.yaml", "env.txt", "log.txt", "overrides.txt"]
    assert second == ["log.txt.rank1"]
    assert third.startswith(f"train.output_dir='{tmp_path}/ranks/machine2/work/run' cannot be written:")


@pytest.fixture
def gpus(monkeypatch):
    """Make torch see some GPUs, for rank 1 of a machine."""

    def see(count, on_cpu=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(defaults, "get_local_rank", lambda: 1)
        hd.set_local_place(1, 2, on_cpu=on_cpu)

    yield see
    hd.set_local_place(None)


@pytest.mark.parametrize(
    ("count", "on_cpu", "device"), [(8, False, "cuda:1"), (1, False, "cuda:0"), (8, True, "cpu"), (0, True, "cpu")]
)
def test_the_device_follows_the_launch(gpus, count, on_cpu, device):
    gpus(count, on_cpu)
    assert str(default_device("auto")) == device


def test_a_gpu_for_processes_on_the_cpu_is_refused(gpus):
    gpus(2, on_cpu=True)
    with pytest.raises(ConfigError, match=r"train\.device='cuda', but this run was started as .*--num-procs"):
        default_device("cuda")


def test_the_start_is_forgotten_with_the_group(gpus):
    gpus(2, on_cpu=True)
    hd.set_local_place(None)
    assert default_device("auto").type == "cuda"
