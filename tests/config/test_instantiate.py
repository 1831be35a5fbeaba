import functools

import pytest
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

import config_parts as parts
from config_parts import FPN, CascadeHeads, Detector, Heads, Part, ResNet, Spec, Stem
from hookline.config import ConfigError, LazyConfig, instantiate
from hookline.config import LazyCall as L


def test_detectron2_style_recipe(cascade):
    cfg = LazyConfig.load(cascade)
    before = LazyConfig.to_yaml(cfg)
    assert instantiate(cfg.model) == Detector(
        backbone=FPN(
            bottom_up=ResNet(stem=Stem(3, 64), stages=["stages", 101, "FrozenBN"], out_features=["res2", "res3"]),
            in_features=["res2", "res3"],
            out_channels=128,
            norm="GN",
        ),
        roi_heads=CascadeHeads(
            num_classes=1,
            box_pooler=Heads(scales=[0.25, 0.125]),
            box_heads=[Stem(0), Stem(1), Stem(2)],
            predictors=[Stem(1, 10), Stem(1, 20)],
        ),
        pixel_mean=[1.0, 2.0, 3.0],
    )
    train = instantiate(cfg.dataloader.train)
    assert train.kwargs["seed"] == 7
    assert type(train.kwargs["mapper"]) is dict
    assert LazyConfig.to_yaml(cfg) == before


def test_run_time_arguments_are_passed_as_they_are(cascade, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # else the first optimizer of a process sets it
    cfg = LazyConfig.load(cascade)
    model = torch.nn.Linear(2, 2)
    params = instantiate(cfg.optimizer.params, model=model)
    assert params["model"] is model
    optimizer = instantiate(cfg.optimizer, params=list(model.parameters()), lr=0.5)
    assert optimizer.param_groups[0]["params"][0] is model.weight
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert cfg.optimizer.lr == 0.02
    assert "model" not in cfg.optimizer.params
    node = OmegaConf.create({"x": 1})
    assert instantiate(L(Part)(), given=node).kwargs["given"] is node


def test_a_replaced_argument_is_not_built():
    assert instantiate(L(Part)(a=L(parts.Broken)(size=1)), a=2) == Part(a=2)


def test_model_written_into_the_config_as_detectron2_does(cascade):
    cfg = LazyConfig.load(cascade)
    model = torch.nn.Linear(2, 2)
    cfg.optimizer.params.model = model
    assert instantiate(cfg.optimizer.params)["model"] is model


def test_containers_come_out_plain():
    node = L(Part)(a=[1, {"b": [2]}], c={"d": None, 3: L(Stem)()}, e=OmegaConf.create([1]))
    built = instantiate(node).kwargs
    assert built == {"a": [1, {"b": [2]}], "c": {"d": None, 3: Stem()}, "e": [1]}
    assert type(built["a"]) is list
    assert type(built["a"][1]) is dict
    assert type(built["a"][1]["b"]) is list
    assert instantiate(OmegaConf.create([{"_target_": "config_parts.Stem"}, 1])) == [Stem(), 1]
    assert instantiate([L(Stem)(), (L(Stem)(),)]) == [Stem(), (Stem(),)]
    assert instantiate({"_target_": "config_parts.Stem", "in_channels": 4}) == Stem(4)


@pytest.mark.parametrize("thing", [3, "text", None, Stem, len, Stem(1)])
def test_nothing_else_is_called(thing):
    assert instantiate(thing) is thing
    assert instantiate(DictConfig({"a": thing}, flags={"allow_objects": True}))["a"] is thing


def test_absent_nodes():
    assert instantiate(DictConfig(None)) is None
    assert instantiate(ListConfig(None)) is None
    assert instantiate(L(Part)(a=None, b=DictConfig(None))) == Part(a=None, b=None)


def test_structured_configs_are_built_as_their_class():
    cfg = OmegaConf.create({"node": Spec(channels=3)})
    assert instantiate(cfg) == {"node": Spec(channels=3)}
    cfg = DictConfig({"_target_": "config_parts.Stem"}, flags={"allow_objects": True})
    cfg._target_ = Spec  # OmegaConf makes a schema of the class
    assert instantiate(cfg, channels=4) == Spec(4)


def test_interpolation_to_calls_and_objects():
    cfg = OmegaConf.create({"a": L(Stem)(in_channels=2), "b": L(Part)(x="${a}", y="${a.in_channels}", z="n${.y}")})
    assert instantiate(cfg.b) == Part(x=Stem(2), y=2, z="n2")


def test_partial_and_calls_of_calls():
    made = instantiate(L(parts.scale)(_partial_=True, factor=3))
    assert isinstance(made, functools.partial)
    assert made(2) == 6
    assert instantiate(L(functools.partial)(parts.scale, factor=3))(2) == 6
    assert instantiate(L(L(parts.make_scaler)(factor=5))(value=2)) == 10
    with pytest.raises(ConfigError, match=r"_target_ gives 2.*cannot be called"):
        instantiate(L(L(parts.scale)(value=2, factor=1))(a=1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.backbone.update(nrom="GN"), ["model.backbone (made at", "FPN has no argument 'nrom'", "'norm'"]),
        (lambda c: c.backbone.pop("bottom_up"), ["model.backbone (", "lacks the required argument 'bottom_up'"]),
        (lambda c: c.backbone.bottom_up.update(stem="???"), ["model.backbone.bottom_up.stem (", "missing (???)"]),
        (lambda c: c.update(pixel_mean="${..train.sed}"), ["model.pixel_mean", "no 'sed' in train", "'seed'"]),
        (lambda c: c.update(pixel_mean="${trian.seed}"), ["model.pixel_mean", "no 'trian' in the config", "'train'"]),
        (lambda c: c.update(pixel_mean="${.backbone.x.y}"), ["${.backbone.x.y} leads nowhere: there is no 'x'"]),
        (lambda c: c.update(pixel_mean="${oc.env:HOOKLINE_NOWHERE}"), ["model.pixel_mean", "HOOKLINE_NOWHERE"]),
        (lambda c: c.update(_target_="config_parts.Detecter"), ["model (", "no 'Detecter'", "'Detector'"]),
        (lambda c: c.update(_target_="config_part.Detector"), ["model (", "no module 'config_part'"]),
        (lambda c: c.update(_target_="config_parts"), ["model (", "'config_parts' is no builtin"]),
        (lambda c: c.update(_target_="sys.path"), ["model (", "which cannot be called"]),
        (lambda c: c.roi_heads.box_heads[1].update(in_chanels=1), ["model.roi_heads.box_heads[1] (", "'in_channels'"]),
        (lambda c: c.backbone.update({5: 1}), ["model.backbone", "arguments have names, 5 is none"]),
        (lambda c: c.backbone.update(_args_=[1, 2]), ["model.backbone", "the argument 'bottom_up' twice"]),
        (
            lambda c: c.backbone.bottom_up.stem.update(_args_=[1, 2, 3]),
            ["stem", "at most 2 positional arguments, not 3"],
        ),
    ],
)
def test_refusals_name_key_place_and_near_name(cascade, change, words):
    cfg = LazyConfig.load(cascade)
    change(cfg.model)
    with pytest.raises(ConfigError) as caught:
        instantiate(cfg.model)
    for word in words:
        assert word in str(caught.value)
    if "made at" in words[0]:
        assert "common/models/mask_rcnn.py:7" in str(caught.value)


def test_a_wrong_name_is_told_before_arguments_are_built():
    with pytest.raises(ConfigError, match="no argument 'outt_channels'"):
        instantiate(L(Stem)(in_channels=L(parts.Broken)(size=1), outt_channels=1))


def test_run_time_arguments_need_a_call():
    with pytest.raises(ConfigError, match=r"'b' stands|takes no 'x'"):
        instantiate(OmegaConf.create({"a": 1}), x=1)
    with pytest.raises(ConfigError, match="takes no a positional argument, 'x'"):
        instantiate([1], 2, x=1)


def test_errors_of_constructors_keep_their_type_and_name_the_node(cascade):
    cfg = LazyConfig.load(cascade)
    cfg.model.backbone.bottom_up.stem = L(parts.Broken)(size=4)
    with pytest.raises(RuntimeError, match="no memory for 4") as caught:
        instantiate(cfg.model)
    assert len(caught.value.__notes__) == 1
    assert caught.value.__notes__[0].startswith("while building model.backbone.bottom_up.stem (made at ")
    with pytest.raises(TypeError, match="deep inside"):
        instantiate(L(parts.Careless)(size=1))


def test_decorators_may_take_more_than_they_show():
    assert instantiate(L(parts.decorated)(value=1, extra=2)) == (1, 2)
    with pytest.raises(ConfigError, match="decorated has no argument 'valu'; did you mean 'value'"):
        instantiate(L(parts.decorated)(valu=1))


def test_torch_functions_without_signatures():
    assert instantiate(L(torch.full)(size=[2], fill_value=3.0)).tolist() == [3.0, 3.0]
