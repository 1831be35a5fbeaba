"""What `default_setup` does for the ranks of a machine that does not share the folder of the run."""

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


def test_a_machine_that_does_not_share_the_folder_keeps_its_logs(sharded_runs, tmp_path):
    first, second, third = sharded_runs.on_ranks(SCRIPT, tmp_path / "ranks", 3)
    assert first == ["config.yaml", "env.txt", "log.txt", "overrides.txt"]
    assert second == ["log.txt.rank1"]
    assert third.startswith(f"train.output_dir='{tmp_path}/ranks/machine2/work/run' cannot be written:")
