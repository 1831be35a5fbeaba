import math

import pytest
import torch

from hookline.engine import EventStorage, losses
from hookline.engine.losses import LossLedger, as_losses, sum_losses


def t(value):
    return torch.tensor(float(value), requires_grad=True) * 1


def add(ledger, iteration, *values, data_time=0.1, files=None, **named):
    given = named or {f"loss_{i}": value for i, value in enumerate(values)}
    ledger.add(iteration, [{name: t(value) for name, value in given.items()}], data_time, files)


class TestAsLosses:
    def test_dict_and_bare_tensor(self):
        assert list(as_losses({"a": t(1), "b": t(2)})) == ["a", "b"]
        assert list(as_losses(t(1))) == ["total_loss"]
        assert as_losses({"a": t(1).reshape(1)})["a"].shape == (1,)

    @pytest.mark.parametrize("output", [[1], None, (t(1),), "loss"])
    def test_refuses_other_types(self, output):
        with pytest.raises(TypeError, match=type(output).__name__):
            as_losses(output)

    def test_refuses_what_is_no_scalar(self):
        with pytest.raises(TypeError, match=r"'a'.*float"):
            as_losses({"a": 1.0})
        with pytest.raises(ValueError, match=r"'a'.*\(2,\)"):
            as_losses({"a": torch.zeros(2)})
        with pytest.raises(ValueError, match="empty"):
            as_losses({})


def test_sum():
    assert sum_losses({"a": t(1), "b": t(2).reshape(1), "c": t(3)}).item() == 6.0
    assert sum_losses({"b": t(2).reshape(1)}).shape == ()


def test_recorded_as_detectron2_does():
    storage, ledger = EventStorage(), LossLedger()
    storage.add_source(ledger)
    add(ledger, 0, a=1, b=2)
    add(ledger, 1, a=3, b=4, data_time=0.5)
    assert storage.history("total_loss").values() == [(3.0, 0), (7.0, 1)]
    assert storage.history("a").values() == [(1.0, 0), (3.0, 1)]
    assert storage.history("data_time").values() == [(0.1, 0), (0.5, 1)]
    assert list(storage.histories()) == ["data_time", "total_loss", "a", "b"]


def test_a_single_loss_is_the_total():
    storage, ledger = EventStorage(), LossLedger()
    storage.add_source(ledger)
    add(ledger, 0, loss_only=2)
    assert set(storage.latest()) == {"total_loss", "data_time"}


def test_prefix():
    storage, ledger = EventStorage(), LossLedger()
    storage.add_source(ledger)
    ledger.add(0, [{"a": t(1), "b": t(2)}], 0.1, prefix="gan/")
    assert set(storage.latest()) == {"gan/total_loss", "gan/a", "gan/b", "data_time"}


def test_accumulated_losses_are_means_over_the_batches():
    storage, ledger = EventStorage(), LossLedger()
    storage.add_source(ledger)
    ledger.add(0, [{"a": t(1), "b": t(2)}, {"a": t(3)}], 0.1)
    assert storage.latest()["a"] == (2.0, 0)
    assert storage.latest()["b"] == (1.0, 0)  # as much as it counts in the gradient
    assert storage.latest()["total_loss"] == (3.0, 0)


def test_tensors_are_cut_from_their_graphs_and_memory():
    ledger = LossLedger()
    parameter = torch.nn.Parameter(torch.tensor([1.0, 5.0]))
    ledger.add(0, [{"leaf": torch.nn.Parameter(torch.tensor(1.0)), "view": parameter[0], "op": parameter.sum()}], 0.0)
    with torch.no_grad():
        parameter.fill_(7.0)
    assert all(tensor.grad_fn is None and not tensor.requires_grad for tensor in ledger.waiting())
    assert [float(tensor) for tensor in ledger.waiting()] == [1.0, 1.0, 6.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_reported(bad):
    storage, ledger = EventStorage(), LossLedger()
    storage.add_source(ledger)
    add(ledger, 5, a=1, b=2, files=["fine.jpg"])
    add(ledger, 6, a=1, b=bad, files=["x.jpg", "y.jpg"])
    add(ledger, 7, a=bad, b=bad, files=["later.jpg"])
    with pytest.raises(FloatingPointError) as error:
        storage.check()
    text = str(error.value)
    assert "iteration 6" in text
    assert f"b={bad}" in text
    assert "a=1" in text
    assert "x.jpg, y.jpg" in text
    assert "fine.jpg" not in text
    assert "later.jpg" not in text


def test_opposite_infinities_are_not_finite():
    storage, ledger = EventStorage(), LossLedger()
    storage.add_source(ledger)
    add(ledger, 0, a=math.inf, b=-math.inf)
    with pytest.raises(FloatingPointError, match="no file_name"):
        storage.check()


def test_gather_averages_over_ranks(monkeypatch):
    """Two ranks, one of which lacks a loss; what was read before is replaced."""
    storage, ledger, other = EventStorage(), LossLedger(), LossLedger()
    storage.add_source(ledger)
    add(ledger, 0, a=1, b=2, data_time=0.1)
    add(other, 0, a=3, c=10, data_time=0.7)
    add(ledger, 1, a=5, b=1)
    add(other, 1, a=5, b=2)
    assert storage.latest()["a"] == (5.0, 1)
    assert storage.history("total_loss").values() == [(3.0, 0), (6.0, 1)]
    for record in other._records:
        record.settle(iter([v.item() for v in record.tensors]))
    monkeypatch.setattr(losses, "get_world_size", lambda: 2)
    monkeypatch.setattr(losses, "gather", lambda mine, patient: [mine, (other._records, 7.0)])
    monkeypatch.setattr(losses, "broadcast", lambda found, patient: found)
    ledger.gather(storage)
    assert storage.history("a").values() == [(2.0, 0), (5.0, 1)]
    assert storage.history("b").values() == [(2.0, 0), (1.5, 1)]
    assert storage.history("c").values() == [(10.0, 0)]
    assert storage.history("total_loss").values() == [(8.0, 0), (6.5, 1)]
    assert storage.history("data_time").values() == [(0.7, 0), (0.1, 1)]
    assert storage.latest()["max_mem"][0] == 7.0  # that of the rank that needed most
    assert ledger.waiting() == []
    assert all(not record.files for record in other._records)


def test_a_bad_loss_of_another_rank_stops_this_one(monkeypatch):
    storage, ledger, other = EventStorage(), LossLedger(), LossLedger()
    storage.add_source(ledger)
    add(ledger, 3, a=1, b=2, files=["mine.jpg"])
    add(other, 3, a=math.nan, b=2, files=["theirs.jpg"])
    for record in other._records:
        record.settle(iter([v.item() for v in record.tensors]))
    storage.flush()
    monkeypatch.setattr(losses, "get_world_size", lambda: 2)
    monkeypatch.setattr(losses, "gather", lambda mine, patient: [mine, (other._records, 7.0)])
    monkeypatch.setattr(losses, "broadcast", lambda found, patient: found)
    with pytest.raises(FloatingPointError, match=r"(?s)iteration 3.*rank 1: a=nan.*theirs.jpg") as error:
        ledger.gather(storage)
    assert "mine.jpg" not in str(error.value)


def test_the_other_ranks_take_what_rank_0_found(monkeypatch):
    storage, ledger = EventStorage(), LossLedger()
    storage.add_source(ledger)
    monkeypatch.setattr(losses, "get_world_size", lambda: 2)
    monkeypatch.setattr(losses, "get_rank", lambda: 1)
    monkeypatch.setattr(losses, "gather", lambda mine, patient: [])
    monkeypatch.setattr(losses, "broadcast", lambda found, patient: ([({"a": 7.0, "b": 1.0}, 8.0, 0.3)], 9.0))
    add(ledger, 0, a=1, b=2)
    storage.flush()
    ledger.gather(storage)
    found = {name: value for name, (value, _) in storage.latest().items()}
    assert found == {"a": 7.0, "b": 1.0, "total_loss": 8.0, "data_time": 0.3, "max_mem": 9.0}
    add(ledger, 1, a=1, b=2)
    storage.flush()
    monkeypatch.setattr(losses, "broadcast", lambda found, patient: losses.NonFiniteError("rank 0: nan", 1))
    with pytest.raises(losses.NonFiniteError, match="rank 0: nan"):
        ledger.gather(storage)


def test_checked_losses_are_let_go():
    storage, ledger = EventStorage(), LossLedger()
    storage.add_source(ledger)
    add(ledger, 0, 1.0, 2.0)
    storage.check()
    assert ledger._records == []
