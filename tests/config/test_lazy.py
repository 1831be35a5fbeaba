import copy
import inspect
import pickle

import pytest
from omegaconf import DictConfig, ListConfig, OmegaConf

from config_parts import FPN, Mode, Pair, Part, ResNet, Spec, Stem
from hookline.config import LazyCall as L
from hookline.config import instantiate
from hookline.config.origin import get_origin


def here() -> str:
    frame = inspect.currentframe().f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def test_a_call_is_recorded_not_made():
    node = L(Stem)(in_channels=5)
    assert isinstance(node, DictConfig)
    assert node == {"_target_": Stem, "in_channels": 5}
    node.in_channels = 4
    assert instantiate(node) == Stem(in_channels=4)


@pytest.mark.parametrize("target", [Stem, "config_parts.Stem", L("config_parts.make_scaler")(factor=2), Stem.__init__])
def test_targets(target):
    assert "_target_" in L(target)(in_channels=1)


@pytest.mark.parametrize("target", [3, None, ["config_parts.Stem"]])
def test_what_cannot_be_called_is_refused(target):
    with pytest.raises(TypeError, match="needs a callable"):
        L(target)


def test_positional_arguments_take_their_names():
    assert L(Stem)(1, out_channels=2) == {"_target_": Stem, "in_channels": 1, "out_channels": 2}
    assert L(max)(1, 2) == {"_target_": max, "_args_": [1, 2]}
    assert instantiate(L(max)(1, 2)) == 2
    assert instantiate(L("builtins.divmod")(7, 2)) == (3, 1)
    assert instantiate(L(print)("a", "b", sep="", end="")) is None


def test_unpacking_a_node_gives_it_another_target():
    stem = L(Stem)(in_channels=7)
    assert instantiate(L(Part)(**stem)) == Part(in_channels=7)


def test_the_origin_survives_what_happens_to_nodes():
    node, place = L(Stem)(in_channels=1), here()
    assert get_origin(node) == place
    outer = L(FPN)(bottom_up=node, in_features=[node])
    assert get_origin(outer.bottom_up) == get_origin(outer.in_features[0]) == place
    assert get_origin(copy.deepcopy(outer).bottom_up) == place
    assert get_origin(OmegaConf.merge(outer, {"bottom_up": {"in_channels": 2}}).bottom_up) == place
    assert get_origin(pickle.loads(pickle.dumps(outer)).bottom_up) == place
    assert get_origin(node.copy()) == place
    config = OmegaConf.create({"a": {}})  # without the flag that allows objects
    config.a.b = node
    config.update(c=node)
    assert get_origin(config.a.b) == get_origin(config.c) == place
    assert instantiate(config.a.b) == Stem(in_channels=1)


def test_dataclasses_and_named_tuples_can_be_overridden():
    node = L(Part)(spec=Spec(channels=256), pair=Pair(1), many=[Spec(height=3)])
    node.spec.channels = 512
    node.pair.second = 9
    assert instantiate(node) == Part(spec=Spec(channels=512), pair=Pair(1, 9), many=[Spec(height=3)])


def test_classes_stay_classes():
    node = L(Part)(kind=Spec, other=dict, third=Stem, method=ResNet.of_depth, mode=Mode.EXACT)
    expected = Part(kind=Spec, other=dict, third=Stem, method=ResNet.of_depth, mode=Mode.EXACT)
    assert instantiate(node) == expected
    assert instantiate(OmegaConf.merge({"a": node}, {"a": {"x": 1}}).a).kwargs["kind"] is Spec
    assert instantiate(L(Spec)(channels=1)) == Spec(channels=1)
    assert instantiate(L(dict)(channels=1)) == {"channels": 1}


def test_tuples_are_recorded_as_lists():
    assert isinstance(L(Part)(scales=(1, 2)).scales, ListConfig)
