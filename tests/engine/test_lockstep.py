"""Ranks with unequal numbers of batches, also with none, evaluate a fully sharded model without waiting for ever."""

import pytest
import torch
from torch import nn

import sharded_runs
from hookline.engine.lockstep import Lockstep

SCRIPT = """
from hookline.engine.lockstep import Lockstep
from hookline.evaluation import DatasetEvaluator, EvaluationInterrupted, inference_on_dataset
from hookline.distributed import all_gather

class Collect(DatasetEvaluator):
    def reset(self):
        self.seen = []
    def process(self, inputs, outputs):
        self.seen += [round(output["score"], 6) for output in outputs]
    def evaluate(self):
        return {"scores": all_gather(self.seen)}

def main(rank, folder):
    torch.set_num_threads(1)
    plain = Net()
    model = create_fully_sharded_model(Net(), "cpu")
    model.train()
    found = {"one": [], "many": [], "modes": [], "stopped": []}
    for counts in ((3, 1), (0, 2), (2, 0), (2, 2), (0, 0)):
        batches = [[sample(10 * rank + index)] for index in range(counts[rank])]
        calls = Lockstep(model)
        many = inference_on_dataset(calls, batches, Collect(), {"on_end": calls.finish})
        found["many"].append(many["scores"])
        found["one"].append(inference_on_dataset(plain, batches, Collect())["scores"])
        found["modes"].append(model.training)
    # one rank is asked to stop, between two batches
    calls = Lockstep(model)
    for asked in (0, 1):
        try:
            inference_on_dataset(calls, [[sample(0)]] * (50 if rank else 3), Collect(), {"on_end": calls.finish},
                                 should_stop=lambda: rank == asked)
            found["stopped"].append("no")
        except EvaluationInterrupted:
            found["stopped"].append("yes")
    found["losses"] = []
    for net in (plain, model):
        trainer = SimpleTrainer(net, Loader(), torch.optim.SGD(net.parameters(), lr=0.1))
        hook = hooks.ValidationLossHook(1, [[sample(rank + 2 * index)] for index in range(3 - 2 * rank)])
        trainer.register_hooks([hook])
        found["losses"].append(hook.measure())
    half = create_fully_sharded_model(Net(), "cpu", gather_dtype="bf16")
    calls = Lockstep(half)
    with torch.no_grad():
        half.eval()
        found["half"] = [calls([sample(0)])[0]["score"], plain.eval()([sample(0)])[0]["score"]]
    calls.finish()
    found["sharded"] = all(hasattr(parameter, "to_local") for parameter in model.parameters())
    return found
"""


def test_uneven_batches_give_the_same_outputs(tmp_path):
    for found in sharded_runs.on_ranks(SCRIPT, tmp_path / "ranks"):
        assert found["many"] == found["one"]
        assert [[len(scores) for scores in ranks] for ranks in found["many"]] == [
            [3, 1],
            [0, 2],
            [2, 0],
            [2, 2],
            [0, 0],
        ]
        assert found["modes"] == [True] * 5
        assert found["stopped"] == ["yes", "yes"]
        assert found["losses"][0] == pytest.approx(found["losses"][1], rel=1e-6)
        assert found["half"][0] == pytest.approx(found["half"][1], rel=0.05, abs=0.02)
        assert found["sharded"]  # nothing stays gathered


def test_any_other_model_is_called_as_it_is():
    calls = Lockstep(nn.Linear(2, 1))
    assert calls(torch.ones(1, 2)).shape == (1, 1)
    calls.finish()
