import pytest
import torch

from hookline.structures import Boxes, Instances


def _heads(build_rcnn, **arguments):
    return build_rcnn(**arguments).roi_heads


def _target(boxes, classes):
    return Instances((100, 100), gt_boxes=Boxes(torch.tensor(boxes)), gt_classes=torch.tensor(classes))


def test_proposals_are_labelled_by_overlap_and_ground_truths_join(build_rcnn):
    heads = _heads(build_rcnn)
    proposals = Instances((100, 100), proposal_boxes=Boxes(torch.tensor([
        [10.0, 10, 30, 30], [11, 11, 31, 31], [60, 60, 90, 95], [0, 0, 5, 5],
    ])), objectness_logits=torch.arange(4.0))  # fmt: skip
    target = _target([[10.0, 10, 30, 30], [60.0, 60, 90, 90]], [2, 1])
    (sample,) = heads.label_and_sample_proposals([proposals], [target])
    found = {
        tuple(box): (label, tuple(gt))
        for box, label, gt in zip(
            sample.proposal_boxes.tensor.tolist(),
            sample.gt_classes.tolist(),
            sample.gt_boxes.tensor.tolist(),
            strict=True,
        )
    }
    assert found[(11, 11, 31, 31)] == (2, (10, 10, 30, 30))
    assert found[(60, 60, 90, 95)] == (1, (60, 60, 90, 90))
    assert found[(0, 0, 5, 5)][0] == 3
    assert found[(60, 60, 90, 90)] == (1, (60, 60, 90, 90))
    assert len(sample) == 6
    assert sample.gt_classes.tolist() == sorted(sample.gt_classes.tolist(), key=lambda label: label == 3)


def test_the_sample_respects_size_and_share(build_rcnn):
    heads = _heads(build_rcnn)
    corner = torch.rand(200, 2) * 80
    boxes = torch.cat([torch.tensor([[10.0, 10, 40, 40]]).repeat(100, 1), torch.cat([corner, corner + 5], 1)])
    proposals = Instances((100, 100), proposal_boxes=Boxes(boxes))
    (sample,) = heads.label_and_sample_proposals([proposals], [_target([[10.0, 10, 40, 40]], [0])])
    assert len(sample) == 32
    assert (sample.gt_classes == 0).sum() == 8


def test_images_without_objects_or_proposals_give_background_or_nothing(build_rcnn):
    heads = _heads(build_rcnn)
    none = Instances((100, 100), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.int64))
    some = Instances((100, 100), proposal_boxes=Boxes(torch.tensor([[0.0, 0, 5, 5]])))
    empty = Instances((100, 100), proposal_boxes=Boxes(torch.zeros(0, 4)))
    first, second = heads.label_and_sample_proposals([some, empty], [none, none])
    assert first.gt_classes.tolist() == [3]
    assert first.gt_boxes.tensor.tolist() == [[0, 0, 5, 5]]
    assert len(second) == 0


@pytest.mark.parametrize("masks", ["polygon", "bitmask"])
def test_masks_and_keypoints_are_fetched_for_the_foreground_only(build_rcnn, make_sample, masks):
    heads = _heads(build_rcnn, keypoints=2)
    target = make_sample(100, 100, [[10, 10, 30, 30], [60, 60, 90, 90]], [2, 1], keypoints=2, masks=masks)["instances"]
    corner = torch.rand(50, 2) * 90
    proposals = Instances((100, 100), proposal_boxes=Boxes(torch.cat([corner, corner + 4], 1)))
    sample = heads.label_and_sample_proposals([proposals], [target])
    assert not sample[0].has("gt_masks")
    (foreground,) = heads.attach_targets(sample, [target])
    assert sorted(foreground.gt_classes.tolist()) == [1, 2]
    assert len(foreground.gt_masks) == len(foreground.gt_keypoints) == 2
    for n in range(2):
        box = foreground.gt_masks[n].get_bounding_boxes().tensor[0]
        torch.testing.assert_close(box, foreground.gt_boxes.tensor[n], atol=1.0, rtol=0)


def test_given_boxes_get_masks_and_keypoints(build_rcnn, make_sample):
    model = build_rcnn(keypoints=2).eval()
    given = Instances(
        (64, 96),
        pred_boxes=Boxes(torch.tensor([[3.0, 4, 50, 60]])),
        pred_classes=torch.tensor([1]),
        scores=torch.ones(1),
    )
    (result,) = model.inference([make_sample(64, 96, [])], [given], do_postprocess=False)
    assert result.pred_boxes.tensor.tolist() == [[3, 4, 50, 60]]
    assert result.pred_masks.shape == (1, 1, 12, 12)
    assert result.pred_keypoints.shape == (1, 2, 3)
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        model.train().roi_heads.forward_with_given_boxes({}, [given])


def test_training_on_predicted_boxes_moves_the_boxes_of_the_mask_head(build_rcnn, make_sample):
    model = build_rcnn(train_on_pred_boxes=True)
    torch.nn.init.constant_(model.roi_heads.box_predictor.bbox_pred.bias, 1.0)
    seen = []
    model.roi_heads.mask_head.register_forward_pre_hook(lambda _, args: seen.extend(args[1]))
    batch = [make_sample(64, 96, [[10, 10, 40, 40]])]
    model(batch)
    gt = batch[0]["instances"].gt_boxes.tensor
    assert len(seen[0])
    assert not any(torch.equal(box, gt[0]) for box in seen[0].proposal_boxes.tensor)


def test_heads_that_lack_their_features_and_other_contradictions_are_refused(build_rcnn):
    with pytest.raises(ValueError, match="mask_in_features given without mask_head"):
        build_rcnn(mask=False, mask_in_features=["p2"])
    heads = build_rcnn().roi_heads
    with pytest.raises(ValueError, match=r"num_classes=5, but box_predictor.num_classes=3"):
        type(heads)(
            box_in_features=["p2"], box_pooler=heads.box_pooler, box_head=heads.box_head,
            box_predictor=heads.box_predictor, num_classes=5, batch_size_per_image=1, positive_fraction=0.5,
            proposal_matcher=heads.proposal_matcher,
        )  # fmt: skip
    heads.mask_head.num_classes = 4
    with pytest.raises(ValueError, match=r"num_classes=3, but mask_head.num_classes=4"):
        build_rcnn(mask=False, mask_in_features=["p2"], mask_head=heads.mask_head)
    with pytest.raises(ValueError, match="targets in training"):
        heads(None, {}, [])
