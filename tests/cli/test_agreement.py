"""Ranks with different recipes: found before the first step, on all ranks, with names."""

import pytest
from omegaconf import OmegaConf

from hookline.cli import agreement
from hookline.cli.agreement import check_same_on_all_ranks
from hookline.cli.errors import UsageError

RECIPE = {"optimizer": {"lr": 0.1}, "train": {"max_iter": 5, "steps": [1, 2]}}


@pytest.fixture
def beside(monkeypatch):
    """Play one of two ranks; the other one's part of each exchange comes from the recipe `other`."""

    def beside(other, mine, rank=0):
        other = OmegaConf.create(other)
        exchange = []
        monkeypatch.setattr(agreement, "get_world_size", lambda: 2)
        monkeypatch.setattr(agreement, "get_rank", lambda: 1 - rank)
        monkeypatch.setattr(agreement, "all_gather", lambda each: exchange.append(each) or [each, each])
        check_same_on_all_ranks(other)  # what the other one sends
        exchange.append(agreement._versions() | agreement._flat(other))
        answers = iter(exchange)
        monkeypatch.setattr(agreement, "get_rank", lambda: rank)
        monkeypatch.setattr(
            agreement, "all_gather", lambda each: [each, next(answers)] if rank == 0 else [next(answers), each]
        )
        check_same_on_all_ranks(OmegaConf.create(mine))

    return beside


def test_a_single_process_agrees_with_itself():
    check_same_on_all_ranks(OmegaConf.create(RECIPE))


def test_equal_recipes_pass(beside):
    beside(RECIPE, RECIPE)


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_names_both_and_what_differs(beside, rank):
    other = {"optimizer": {"lr": 0.2}, "train": {"max_iter": 5, "steps": [1, 3], "seed": 1}}
    with pytest.raises(UsageError) as error:
        beside(other, RECIPE, rank)
    lines = str(error.value).splitlines()
    assert "rank 0 runs recipe" in lines[0]
    assert "rank 1 runs recipe" in lines[0]
    expected = [("0.1", "0.2"), ("2", "3"), ("(not set)", "1")]
    for key, values in zip(("optimizer.lr", "train.steps.1", "train.seed"), expected, strict=True):
        first, second = values if rank == 0 else values[::-1]
        assert f"  {key}: {first} on rank 0, {second} on rank 1" in lines


def test_many_differences_are_counted(beside):
    with pytest.raises(UsageError, match="and 12 more"):
        beside({"a": list(range(20))}, {"a": list(range(1, 21))})


def test_another_version_of_torch_is_named(beside, monkeypatch):
    versions = iter(["2.1", "2.1", "2.2", "2.2"])
    monkeypatch.setattr(agreement, "_versions", lambda: {"version of torch": next(versions)})
    with pytest.raises(UsageError, match=r"version of torch: 2\.2 on rank 0, 2\.1 on rank 1"):
        beside(RECIPE, RECIPE)
