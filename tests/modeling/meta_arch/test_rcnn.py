import copy

import pytest
import torch

from hookline.structures import Boxes, Instances

LOSSES = ["loss_box_reg", "loss_cls", "loss_keypoint", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"]


def _mixed_batch(make_sample, **kwargs):
    return [
        make_sample(64, 96, [[10, 10, 40, 40], [50, 20, 90, 60]], [0, 2], seed=1, **kwargs),
        make_sample(50, 120, [], seed=2, **kwargs),
        make_sample(97, 33, [[1, 1, 30, 90]], [1], seed=3, **kwargs),
    ]


@pytest.mark.parametrize("masks", ["polygon", "bitmask"])
def test_batches_of_mixed_sizes_with_empty_images_train(build_rcnn, make_sample, masks):
    model = build_rcnn(keypoints=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = copy.deepcopy(model.state_dict())
    for _ in range(2):
        losses = model(_mixed_batch(make_sample, keypoints=2, masks=masks))
        assert sorted(losses) == LOSSES
        assert all(loss.dim() == 0 and loss.isfinite() for loss in losses.values())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert all(not torch.equal(before[name], value) for name, value in model.named_parameters())


def test_every_parameter_gets_a_gradient_when_no_image_has_objects(build_rcnn, make_sample):
    model = build_rcnn(keypoints=2)
    losses = model([make_sample(64, 96, [], keypoints=2), make_sample(32, 32, [], keypoints=2)])
    assert sorted(losses) == LOSSES
    sum(losses.values()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_every_parameter_gets_a_gradient_when_nothing_is_proposed(build_rcnn, make_sample):
    model = build_rcnn(keypoints=2)
    model.proposal_generator.min_box_size = 1e6
    for boxes in ([], [[10, 10, 40, 40]]):
        model.zero_grad(set_to_none=True)
        losses = model([make_sample(64, 96, boxes, keypoints=2)])
        sum(losses.values()).backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_images_without_objects_need_no_masks_or_keypoints(build_rcnn, make_sample):
    sample = make_sample(64, 96, [])
    assert sample["instances"].has("gt_masks")
    sample["instances"].remove("gt_masks")
    assert sorted(build_rcnn(keypoints=2)([sample])) == LOSSES


def test_predictions_are_in_the_original_images_pixels(build_rcnn, make_sample):
    model = build_rcnn(keypoints=2).eval()
    batch = _mixed_batch(make_sample)
    predictions = model(batch)
    for sample, prediction in zip(batch, predictions, strict=True):
        instances = prediction["instances"]
        assert instances.image_size == (sample["height"], sample["width"])
        assert len(instances)
        assert instances.pred_masks.shape == (len(instances), *instances.image_size)
        assert instances.pred_keypoints.shape == (len(instances), 2, 3)
        assert set(instances.pred_classes.tolist()) <= {0, 1, 2}
        boxes = instances.pred_boxes.tensor
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= sample["width"]).all()
        assert not boxes.requires_grad


def test_an_images_predictions_do_not_depend_on_its_batch(build_rcnn, make_sample):
    model = build_rcnn(norm="FrozenBN").eval()
    first, second = make_sample(64, 64, [], seed=1), make_sample(64, 96, [], seed=2)
    together = model([first, second])[1]["instances"]
    alone = model([second])[0]["instances"]
    torch.testing.assert_close(together.pred_boxes.tensor, alone.pred_boxes.tensor, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(together.scores, alone.scores)


def test_where_nothing_is_proposed_nothing_is_predicted(build_rcnn, make_sample):
    model = build_rcnn(keypoints=2).eval()
    model.proposal_generator.min_box_size = 1e6
    (prediction,) = model([make_sample(64, 96, [])])
    assert len(prediction["instances"]) == 0
    assert prediction["instances"].pred_masks.shape == (0, 128, 192)


def test_preprocessing_normalises_and_pads_with_the_mean(build_rcnn, make_sample):
    model = build_rcnn()
    first, second = make_sample(50, 60, []), make_sample(33, 70, [])
    images = model.preprocess_image([first, second])
    assert images.tensor.shape == (2, 3, 64, 96)
    assert images.image_sizes == [(50, 60), (33, 70)]
    torch.testing.assert_close(images[1], (second["image"].float() - 127) / 60)
    assert images.tensor[0, :, 50:].abs().sum() == images.tensor[0, :, :, 60:].abs().sum() == 0


def test_bfloat16_autocast_trains_and_predicts_with_losses_in_float32(build_rcnn, make_sample):
    model = build_rcnn(keypoints=2)
    batch = _mixed_batch(make_sample, keypoints=2)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        (prediction,) = model.eval()(batch[:1])
    assert prediction["instances"].scores.dtype == torch.float32


def test_channels_last_gives_the_same_losses(build_rcnn, make_sample):
    model = build_rcnn()
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    results = []
    for one in (model, other):
        torch.manual_seed(5)
        results.append(one(_mixed_batch(make_sample)))
    for name, loss in results[0].items():
        torch.testing.assert_close(results[1][name], loss, rtol=1e-3, atol=1e-4)


def test_proposals_may_come_with_the_samples(build_rcnn, make_sample):
    model = build_rcnn()
    model.proposal_generator = None
    sample = make_sample(64, 96, [[10, 10, 40, 40]])
    sample["proposals"] = Instances((64, 96), proposal_boxes=Boxes(torch.tensor([[12.0, 12, 40, 40]])))
    assert sorted(model([sample])) == ["loss_box_reg", "loss_cls", "loss_mask"]
    assert len(model.eval()([sample])[0]["instances"])


def test_one_image_is_learned(build_rcnn, make_sample):
    sample = make_sample(64, 96, [[12, 10, 44, 50], [56, 20, 88, 60]], [0, 2])
    for box, value in (((12, 10, 44, 50), 255), ((56, 20, 88, 60), 0)):
        sample["image"][:, box[1] : box[3], box[0] : box[2]] = value
    model = build_rcnn(width=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(60):
        losses = sum(model([sample]).values())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        totals.append(losses.item())
    assert sum(totals[-5:]) < 0.35 * sum(totals[:5])
    found = model.eval()([{**sample, "height": 64, "width": 96}])[0]["instances"]
    best = found[found.scores > 0.5]
    assert set(best.pred_classes.tolist()) == {0, 2}
    want = sample["instances"].gt_boxes.tensor
    for box, label in zip(want, (0, 2), strict=True):
        own = best[best.pred_classes == label]
        assert (own.pred_boxes.tensor[0] - box).abs().max() < 8


@pytest.mark.parametrize(("arguments", "words"), [
    ({"pixel_std": [1.0]}, "pixel_mean has 3 channels, pixel_std 1"), ({"pixel_std": [1.0, 0.0, 1.0]}, "pixel_std=0.0"),
])  # fmt: skip
def test_wrong_arguments_are_refused_by_name(build_rcnn, arguments, words):
    model = build_rcnn()
    defaults = {
        "backbone": model.backbone, "proposal_generator": None, "roi_heads": model.roi_heads,
        "pixel_mean": [0.0] * 3, "pixel_std": [1.0] * 3,
    }  # fmt: skip
    with pytest.raises(ValueError, match=words):
        type(model)(**{**defaults, **arguments})


def test_samples_without_ground_truth_and_inference_in_training_are_refused(build_rcnn, make_sample):
    model, sample = build_rcnn(), make_sample(64, 96, [])
    with pytest.raises(ValueError, match="inference needs the model in evaluation mode"):
        model.inference([sample])
    del sample["instances"]
    with pytest.raises(ValueError, match=r"without `instances` in training: 0.jpg"):
        model([sample])


def test_a_model_tells_what_it_predicts(build_rcnn, make_sample):
    model = build_rcnn(keypoints=2).eval()
    predicted = model([make_sample(64, 96, [[10, 10, 40, 40]], [0], keypoints=2)])[0]["instances"]
    assert set(model.predicted_fields) == set(predicted.get_fields()) - {"pred_keypoint_heatmaps"}
