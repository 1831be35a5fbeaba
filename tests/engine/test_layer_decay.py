import functools

import pytest

from hookline.engine import get_default_optimizer_params
from hookline.engine.layer_decay import get_resnet_lr_decay_rate, get_vit_lr_decay_rate


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("backbone.net.pos_embed", 13),
        ("backbone.net.patch_embed.proj.weight", 13),
        ("backbone.net.blocks.0.attn.qkv.weight", 12),
        ("backbone.net.blocks.11.mlp.fc1.bias", 1),
        ("backbone.net.blocks.3.residual.conv1.weight", 0),
        ("backbone.simfp_2.0.weight", 0),
        ("roi_heads.box_head.blocks.0.weight", 0),
    ],
)
def test_vit(name, power):
    assert get_vit_lr_decay_rate(name, lr_decay_rate=0.7, num_layers=12) == 0.7**power


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("backbone.bottom_up.stem.conv1.weight", 5),
        ("backbone.bottom_up.res2.0.conv1.weight", 4),
        ("backbone.res4.5.conv3.norm.bias", 2),
        ("backbone.bottom_up.res5.2.conv3.weight", 1),
        ("roi_heads.res5.0.conv1.weight", 1),
        ("backbone.fpn_lateral2.weight", 0),
        ("proposal_generator.rpn_head.conv.weight", 0),
        ("stem.conv1.weight", 5),
    ],
)
def test_resnet(name, power):
    assert get_resnet_lr_decay_rate(name, 0.5) == 0.5**power


def test_by_default_nothing_decays():
    assert get_vit_lr_decay_rate("backbone.net.pos_embed") == 1.0
    assert get_resnet_lr_decay_rate("backbone.stem.conv1.weight") == 1.0


def test_groups_of_a_resnet():
    from hookline.modeling.backbone import BasicBlock, BasicStem, ResNet

    stages = [
        ResNet.make_stage(BasicBlock, 1, stride_per_block=[1], in_channels=4, out_channels=4, norm="BN")
        for _ in range(4)
    ]
    model = ResNet(BasicStem(3, 4, norm="BN"), stages, out_features=["res5"], freeze_at=2)
    func = functools.partial(get_resnet_lr_decay_rate, lr_decay_rate=0.5)
    groups = get_default_optimizer_params(model, base_lr=1.0, lr_factor_func=func)
    assert [group["lr"] for group in groups] == [0.125, 0.25, 0.5]  # the stem and res2 are frozen
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: get_vit_lr_decay_rate("x", 0.0), "lr_decay_rate=0.0"),
        (lambda: get_vit_lr_decay_rate("backbone.blocks.12.x", 0.7), "num_layers=12: the model has more blocks"),
        (lambda: get_resnet_lr_decay_rate("x", 1.5), "lr_decay_rate=1.5"),
        (lambda: get_resnet_lr_decay_rate("res6.x", 0.5), "num_stages=4: the model has more stages"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
