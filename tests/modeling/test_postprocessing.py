import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hookline.modeling import detector_postprocess
from hookline.structures import Boxes, Instances


def _results():
    boxes = torch.tensor([[10.0, 5, 50, 45], [-20, 0, 30, 30], [200, 200, 300, 300], [90, 40, 130, 90]])
    return Instances(
        (50, 100),
        pred_boxes=Boxes(boxes),
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6]),
        pred_classes=torch.tensor([0, 1, 2, 3]),
        pred_masks=torch.rand(4, 1, 8, 8),
        pred_keypoints=torch.rand(4, 2, 3),
    )


def test_boxes_and_keypoints_are_scaled_and_empty_boxes_dropped():
    results = _results()
    before = results.pred_boxes.tensor.clone()
    out = detector_postprocess(results, 100, 300)
    assert out.image_size == (100, 300)
    assert out.pred_boxes.tensor.tolist() == [[30, 10, 150, 90], [0, 0, 90, 60], [270, 80, 300, 100]]
    assert out.pred_classes.tolist() == [0, 1, 3]
    torch.testing.assert_close(out.pred_keypoints, results.pred_keypoints[[0, 1, 3]] * torch.tensor([3.0, 2, 1]))
    assert torch.equal(results.pred_boxes.tensor, before)


def test_masks_equal_sampling_every_pixel():
    results = _results()
    out = detector_postprocess(results, 100, 300)
    masks = results.pred_masks[[0, 1, 3]]
    ys, xs = torch.meshgrid(torch.arange(100) + 0.5, torch.arange(300) + 0.5, indexing="ij")
    for n, (x0, y0, x1, y1) in enumerate(out.pred_boxes.tensor.tolist()):
        grid = torch.stack([(xs - x0) / (x1 - x0) * 2 - 1, (ys - y0) / (y1 - y0) * 2 - 1], -1)[None]
        soft = F.grid_sample(masks[n : n + 1], grid, align_corners=False)[0, 0]
        sure = (soft - 0.5).abs() > 1e-5
        assert torch.equal(out.pred_masks[n][sure], (soft >= 0.5)[sure])


def test_masks_lie_ready_for_run_length_encoding():
    masks = detector_postprocess(_results(), 100, 300).pred_masks
    assert masks.shape == (3, 100, 300)
    assert masks.dtype == torch.bool
    view = masks.permute(1, 2, 0).numpy()
    assert view.flags.f_contiguous
    assert np.shares_memory(view, np.asfortranarray(view))


def test_without_detections_there_are_empty_fields():
    out = detector_postprocess(_results()[torch.zeros(4, dtype=torch.bool)], 100, 300)
    assert len(out) == 0
    assert out.pred_masks.shape == (0, 100, 300)


def test_proposals_are_scaled_too_and_nothing_else_is_taken():
    proposals = Instances((10, 10), proposal_boxes=Boxes(torch.tensor([[1.0, 1, 2, 2]])))
    assert detector_postprocess(proposals, 20, 20).proposal_boxes.tensor.tolist() == [[2, 2, 4, 4]]
    with pytest.raises(ValueError, match=r"pred_boxes or proposal_boxes, got \['scores'\]"):
        detector_postprocess(Instances((10, 10), scores=torch.ones(1)), 20, 20)
