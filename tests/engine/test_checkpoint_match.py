"""Names and shapes: what fits a model."""

import pytest
import torch
from torch import nn

from hookline.engine.checkpoint_match import (
    MatchReport,
    compare,
    load_model_state,
    match_by_suffix,
    unwrap_model,
    without_wrapper_prefix,
)


def model() -> nn.Module:
    return nn.ModuleDict({"body": nn.Linear(2, 3), "head": nn.Linear(3, 4)})


class Renamed(nn.Linear):
    """A layer that reads the names of an older version of itself."""

    def _load_from_state_dict(self, state_dict, prefix, *args):
        if f"{prefix}old" in state_dict:
            state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}old")
        super()._load_from_state_dict(state_dict, prefix, *args)


def test_all_fits():
    source, target = model(), model()
    report = load_model_state(target, source.state_dict())
    assert report.is_exact
    assert len(report.matched) == 4
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))
    assert str(report) == "4 matched, 0 missing in the file, 0 unexpected in the file, 0 of another shape"


def test_what_does_not_fit_is_listed_and_the_rest_is_loaded():
    state = model().state_dict()
    state["head.weight"] = torch.zeros(9, 3)
    state["extra.a"], state["extra.b"] = torch.zeros(1), torch.zeros(2)
    del state["body.bias"], state["head.bias"]
    target = model()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    assert compare(target, state) == load_model_state(target, state)
    report = compare(target, state)
    assert report.matched == ["body.weight"]
    assert report.missing == ["body.bias", "head.bias"]
    assert report.unexpected == ["extra.a", "extra.b"]
    assert report.other_shape == {"head.weight": ((9, 3), (4, 3))}
    assert torch.equal(target["body"].weight, state["body.weight"])
    assert torch.equal(target["head"].weight, before["head.weight"])
    assert "extra.{a, b}" in report.table()
    assert "[9, 3] in the file, [4, 3] in the model" in report.table()


def test_a_layer_may_translate_its_own_names():
    target = nn.ModuleDict({"layer": Renamed(2, 2, bias=False)})
    report = load_model_state(target, {"layer.old": torch.full((2, 2), 7.0)})
    assert report == MatchReport(matched=["layer.weight"])
    assert target["layer"].weight.sum() == 28


def test_long_tables_are_cut():
    report = MatchReport(missing=[f"layer{i}.weight" for i in range(100)])
    assert "and 60 more" in report.table()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_go(prefix):
    state = {f"{prefix}a.weight": torch.ones(1), f"{prefix}b": torch.ones(1)}
    assert list(without_wrapper_prefix(state)) == ["a.weight", "b"]
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert without_wrapper_prefix(mixed) == mixed
    assert without_wrapper_prefix({}) == {}


def test_versions_of_layers_stay_with_their_names():
    wrapped = nn.DataParallel(nn.BatchNorm1d(2)).state_dict()
    assert without_wrapper_prefix(wrapped)._metadata[""]["version"] == 2
    old = nn.BatchNorm1d(2).state_dict()
    del old["num_batches_tracked"]
    assert load_model_state(nn.BatchNorm1d(2), old).missing == ["num_batches_tracked"]


def test_wrappers_are_looked_through(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # else torch.compile sets it for good
    plain = nn.Linear(1, 1)
    assert unwrap_model(plain) is plain
    assert unwrap_model(nn.DataParallel(plain)) is plain
    assert unwrap_model(torch.compile(plain)) is plain
    assert unwrap_model(nn.DataParallel(torch.compile(plain))) is plain


def test_suffixes():
    one, two, three = torch.ones(1), torch.ones(2), torch.ones(3)
    names = ["backbone.stem.conv.weight", "backbone.res2.conv.weight", "a.fc.bias", "b.fc.bias", "backbone.norm"]
    state = {"stem.conv.weight": one, "conv.weight": two, "fc.bias": three, "norm": one, "unknown": two}
    result = match_by_suffix(state, names)
    assert result["backbone.stem.conv.weight"] is one
    assert result["backbone.res2.conv.weight"] is two
    assert result["backbone.norm"] is one
    assert result["unknown"] is two
    assert set(result) == {"backbone.stem.conv.weight", "backbone.res2.conv.weight", "backbone.norm", "unknown"}


def test_ambiguous_suffixes_are_named(caplog):
    match_by_suffix({"fc.bias": torch.ones(1)}, ["a.fc.bias", "b.fc.bias"])
    assert "fits several names and is not used: a.fc.bias, b.fc.bias" in caplog.text


def test_half_a_word_is_no_suffix():
    assert list(match_by_suffix({"conv.weight": torch.ones(1)}, ["myconv.weight"])) == ["conv.weight"]
