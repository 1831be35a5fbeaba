import numpy as np
import pytest
import torch

from hookline.engine.scalars import as_scalar, to_floats


def test_numbers_of_all_kinds_become_floats():
    for value in (1, 1.0, np.float32(1), np.int64(1), True, np.ones(1)[0]):
        result = as_scalar("x", value)
        assert type(result) is float
        assert result == 1.0


def test_tensors_are_copied_and_cut_from_the_graph():
    source = torch.ones(1, requires_grad=True)
    kept = as_scalar("x", source)
    with torch.no_grad():
        source.fill_(5.0)
    assert kept.shape == ()
    assert not kept.requires_grad
    assert to_floats([kept]) == [1.0]


def test_whole_numbers_keep_their_value_beside_small_floats():
    big = as_scalar("n", torch.tensor(2**24 + 1))
    assert to_floats([torch.tensor(0.5), big]) == [0.5, 2.0**24 + 1]


def test_mixed_precision_is_read_exactly():
    values = [torch.tensor(0.1, dtype=d) for d in (torch.float16, torch.bfloat16, torch.float32, torch.float64)]
    assert to_floats(values) == [float(v) for v in values]
    assert to_floats([]) == []


def test_one_stack_for_all_values(monkeypatch):
    calls = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda *a, **k: calls.append(1) or stack(*a, **k))
    to_floats([torch.tensor(float(i)) for i in range(100)])
    assert len(calls) == 1


def test_refusals_name_the_metric():
    with pytest.raises(TypeError, match=r"'acc'.*'high'"):
        as_scalar("acc", "high")
    with pytest.raises(TypeError, match="'acc'"):
        as_scalar("acc", None)
    with pytest.raises(ValueError, match=r"'acc'.*\(2, 3\)"):
        as_scalar("acc", torch.zeros(2, 3))
