"""A fully sharded run that is asked to stop on one rank, and one that meets a loss that is not finite."""

import sharded_runs

SCRIPT = """
import os, signal
from hookline.engine.hooks import NonFiniteGuard
from hookline.engine.suspend import SuspendCheckpointer, Suspended
from hookline.engine.triggers import SignalTrigger

class Bad(Net):
    at = None
    def forward(self, batch):
        losses = super().forward(batch)
        if self.training and self.steps == self.at and get_rank() == 1:
            losses["loss_a"] = losses["loss_a"] * float("nan")
        return losses

def trained(folder, *, kill_at=None, guard=False, nan_at=None):
    model = Bad()
    model.at = nan_at
    model = create_fully_sharded_model(model, "cpu")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    trainer = SimpleTrainer(model, Loader(), optimizer, 4)
    checkpointer = ShardedCheckpointer(model, folder, trainer=trainer)
    def act(trainer):
        if trainer.iter == kill_at and get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
    trainer.register_hooks([
        hooks.CallbackHook(after_backward=act),
        NonFiniteGuard() if guard else None,
        hooks.PeriodicCheckpointer(checkpointer, 100),
        SuspendCheckpointer(checkpointer, triggers=[SignalTrigger()]),
    ])
    ended = ""
    try:
        trainer.train(checkpointer.resume() + 1, 9)
    except Suspended as leaving:
        ended = leaving.code
    except FloatingPointError as error:
        ended = str(error)
    weights = {name: whole(value).tolist() for name, value in model.state_dict().items()}
    return {"iter": trainer.iter, "ended": ended, "weights": weights,
            "files": sorted(path.name for path in folder.iterdir()) if folder.exists() else []}

def main(rank, folder):
    torch.set_num_threads(1)
    found = {"first": trained(folder / "a", kill_at=4)}
    synchronize()
    found["resumed"] = trained(folder / "a")
    found["whole"] = trained(folder / "b")
    found["nan"] = trained(folder / "c", nan_at=3)
    found["skipped"] = trained(folder / "d", nan_at=3, guard=True)
    return found
"""


def test_all_ranks_save_together_leave_together_and_go_on_exactly(tmp_path):
    ranks = sharded_runs.on_ranks(SCRIPT, tmp_path / "ranks")
    for found in ranks:
        assert found["first"]["ended"] == 143
        assert found["first"]["iter"] == ranks[0]["first"]["iter"]
        assert f"model_{found['first']['iter']:07d}.dcp" in found["first"]["files"]
        assert found["resumed"]["weights"] == found["whole"]["weights"]
        assert "loss is not finite at iteration 2" in found["nan"]["ended"]
        assert "rank 1: loss_a=nan" in found["nan"]["ended"]
        assert found["nan"]["files"] == []
        assert (found["skipped"]["ended"], found["skipped"]["iter"]) == ("", 9)
        assert found["skipped"]["weights"] != found["whole"]["weights"]
        assert "nan" not in str(found["skipped"]["weights"])
