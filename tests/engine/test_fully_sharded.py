"""Fully sharded models on two gloo ranks: the same numbers as one process and as DistributedDataParallel."""

import math
import time
from datetime import timedelta

import pytest
import torch
from torch import nn

import sharded_runs
from hookline.distributed import get_rank
from hookline.engine import SimpleTrainer, launch
from hookline.engine.fully_sharded import create_fully_sharded_model, is_fully_sharded, unit_names
from hookline.engine.launch_causes import LostContactError

CASES = {
    "plain": {},
    "adamw": {"optimizer": "AdamW"},
    "norm": {"clip": "norm"},
    "inf": {"clip": "inf"},
    "each": {"clip": "each"},
    "value": {"clip": "value"},
    "accumulate": {"accumulate": 2, "clip": "norm"},
    "bf16": {"precision": "bf16"},
}
MORE = {  # options of fully sharded models, which must change nothing
    "kept": {"reshard_after_forward": False},
    "every batch": {"accumulate": 2, "clip": "norm", "reduce_every_batch": True},
    "names": {"units": ["blocks.?", "stem"]},
}
SCRIPT = f"""
CASES, MORE = {CASES!r}, {MORE!r}

def main(rank, folder):
    torch.set_num_threads(1)
    found = {{name: [run("fsdp", 20, **case), run("ddp", 20, **case)] for name, case in CASES.items()}}
    found["options"] = {{name: run("fsdp", 20, **case) for name, case in MORE.items()}}
    model = create_fully_sharded_model(Net(), "cpu")
    found["local"] = {{name: list(p.to_local().shape) for name, p in model.named_parameters()}}
    found["gathered"] = run("fsdp", 20, precision="bf16", gather_dtype="bf16")
    return found
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return sharded_runs.on_ranks(SCRIPT, tmp_path_factory.mktemp("ranks"))


def assert_close(first, second, tolerance=1e-5):
    for (a, i), (b, j) in zip(first["losses"], second["losses"], strict=True):
        assert i == j
        assert a == pytest.approx(b, abs=tolerance, rel=tolerance), f"loss of iteration {i}"
    assert first["weights"].keys() == second["weights"].keys()
    for name, value in first["weights"].items():
        torch.testing.assert_close(torch.tensor(value), torch.tensor(second["weights"][name]), atol=tolerance, rtol=0)
    assert first["norms"] == pytest.approx(second["norms"], rel=1e-5)


@pytest.mark.parametrize("case", [name for name in CASES if name != "bf16"])
def test_it_trains_like_one_process_and_like_ddp(ranks, case):
    (sharded, ddp), (other, _) = ranks[0][case], ranks[1][case]
    alone = sharded_runs.run("one", 20, **CASES[case])
    assert_close(sharded, other, 0)
    assert_close(sharded, ddp)
    alone["weights"]["steps"] = sharded["weights"]["steps"]
    assert_close(sharded, alone)
    assert len(alone["norms"]) == (20 if CASES[case].get("clip") in ("norm", "inf") else 0)
    assert max(alone["norms"], default=1.0) > 0.05  # it did clip
    assert not math.isclose(sharded["losses"][0][0], sharded["losses"][-1][0], rel_tol=0.01)


def test_bf16_is_autocast_as_elsewhere(ranks):
    sharded, ddp = ranks[0]["bf16"]
    assert_close(sharded, ddp, 1e-2)
    assert sharded["losses"] != ranks[0]["plain"][0]["losses"]
    assert_close(ranks[0]["gathered"], ddp, 1e-2)


@pytest.mark.parametrize("case", MORE)
def test_options_change_nothing(ranks, case):
    same = ranks[0]["accumulate" if case == "every batch" else "plain"][0]
    assert_close(ranks[0]["options"][case], same)


def test_each_rank_holds_its_rows(ranks):
    first, second = (rank["local"] for rank in ranks)
    assert first["blocks.0.conv.weight"] == [3, 5, 3, 3]
    assert second["blocks.0.conv.weight"] == [2, 5, 3, 3]
    assert (first["score.bias"], second["score.bias"]) == ([1], [0])


def test_units():
    model = sharded_runs.Net()
    assert unit_names(model) == ["blocks.0", "blocks.1"]
    assert unit_names(model, ["*Block", "blocks", "score"]) == ["blocks.0", "blocks.1", "blocks", "score"]
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 2, enable_nested_tensor=False)
    assert unit_names(encoder) == ["layers.0", "layers.1"]


@pytest.mark.parametrize(
    ("name", "hint"), [("ConvBlok", "did you mean 'ConvBlock'?"), ("Zzz", "the classes are Conv2d, ConvBlock")]
)
def test_a_unit_that_fits_nothing(name, hint):
    with pytest.raises(ValueError, match=f"'{name}' fits no class and no module") as error:
        unit_names(sharded_runs.Net(), ["Linear", name])
    assert hint in str(error.value)


def test_a_single_process_has_the_plain_model(caplog):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.SyncBatchNorm(2))
    with caplog.at_level("INFO"):
        assert create_fully_sharded_model(model, "cpu", units=["Conv2d"]) is model
    assert not is_fully_sharded(model)
    assert type(model[1]) is nn.BatchNorm2d
    assert "the model stays whole" in caplog.text


REFUSALS = """
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.b.weight = self.a.weight

class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

def main(rank, folder):
    found = []
    for model, options in (
        (Tied(), {"units": ["a", "b"]}),
        (Normed(), {"gather_dtype": "bf16"}),
        (Normed(), {"gather_dtype": "fp8"}),
        (Normed(), {"cpu_offload": True}),
    ):
        try:
            create_fully_sharded_model(model, "cpu", **options)
        except ValueError as error:
            found.append(str(error))
    assert is_fully_sharded(create_fully_sharded_model(Tied(), "cpu"))
    return found
"""


def test_refusals(tmp_path):
    found = sharded_runs.on_ranks(REFUSALS, tmp_path / "ranks")
    assert found[0] == found[1]
    for text, words in zip(
        found[0],
        (
            "the parameters a.weight and b.weight are one, but belong to different units",
            "gather_dtype='bf16': norm is a BatchNorm2d with weights",
            "gather_dtype='fp8': expected None or one of bf16",
            "cpu_offload=True, but the run is on the CPU",
        ),
        strict=True,
    ):
        assert words in text


class Head(nn.Linear):
    pass


class RunsItsHeadOnRank0(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.mask_head = Head(4, 4), Head(4, 4)

    def forward(self, batch):
        out = self.body(torch.ones(2, 4))
        return {"loss": (self.mask_head(out) if get_rank() == 0 else out).mean()}


def train_it():
    model = create_fully_sharded_model(RunsItsHeadOnRank0(), "cpu", units=["Head"])
    SimpleTrainer(model, [[{}]] * 3, torch.optim.SGD(model.parameters(), 0.1)).train(0, 3)


@pytest.mark.slow
def test_a_unit_that_only_one_rank_runs_ends_the_run_and_is_named(capfd):
    start = time.monotonic()
    with pytest.raises(LostContactError, match=r"rank \d waited 8 s \(train\.env\.timeout_s\)"):
        launch(train_it, 0, num_procs_per_machine=2, timeout=timedelta(seconds=8))
    assert time.monotonic() - start < 90  # on an idle machine 17 s, of which the ranks wait 8
    said = capfd.readouterr().err
    for rank, unit in ((0, "mask_head"), (1, "body")):
        assert f"rank {rank} stops at iteration 0: it lost contact with other ranks" in said
        assert f"the unit that began last here was '{unit}'" in said
