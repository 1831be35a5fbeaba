import pytest
import torch

from hookline.structures import Keypoints, heatmaps_to_keypoints


def test_cells_by_the_naive_loop():
    torch.manual_seed(0)
    points = torch.rand(20, 5, 3) * torch.tensor([100.0, 80.0, 3.0])
    points[:, :, 2] = points[:, :, 2].floor()
    low = torch.rand(20, 2) * 50
    boxes = torch.cat([low, low + torch.rand(20, 2) * 60 + 1], dim=1)
    cells, valid = Keypoints(points).to_heatmap(boxes, 56)
    assert cells.dtype == torch.int64
    assert valid.dtype == torch.bool
    for n in range(20):
        x0, y0, x1, y1 = boxes[n].tolist()
        for k in range(5):
            x, y, visibility = points[n, k].tolist()
            inside = x0 <= x <= x1 and y0 <= y <= y1 and visibility > 0
            assert valid[n, k] == inside
            column, row = int((x - x0) * 56 / (x1 - x0)), int((y - y0) * 56 / (y1 - y0))
            assert cells[n, k] == (row * 56 + column if inside else 0)


def test_the_far_edge_belongs_to_the_last_cell():
    cells, valid = Keypoints([[[10, 20, 2], [10.1, 20, 2]]]).to_heatmap(torch.tensor([[0.0, 0, 10, 20]]), 8)
    assert valid.tolist() == [[True, False]]
    assert cells.tolist() == [[63, 0]]


def test_no_instances():
    cells, valid = Keypoints(torch.zeros(0, 17, 3)).to_heatmap(torch.zeros(0, 4), 56)
    assert cells.shape == valid.shape == (0, 17)
    assert heatmaps_to_keypoints(torch.zeros(0, 17, 56, 56), torch.zeros(0, 4)).shape == (0, 17, 4)


def test_a_box_without_width_has_no_valid_keypoint_outside():
    cells, valid = Keypoints([[[5, 5, 2], [6, 5, 2]]]).to_heatmap(torch.tensor([[5.0, 0, 5, 10]]), 8)
    assert valid.tolist()[0][1] is False
    assert (cells >= 0).all()
    assert (cells < 64).all()


def test_decoding_undoes_encoding():
    boxes = torch.tensor([[10.0, 20, 66, 76], [0, 0, 112, 28]])
    points = torch.tensor([[[12.5, 30.5, 2], [60.5, 70.5, 2]], [[31.0, 14.25, 2], [100.0, 3.0, 2]]])
    cells, valid = Keypoints(points).to_heatmap(boxes, 56)
    assert valid.all()
    maps = torch.zeros(2, 2, 56 * 56).scatter_(2, cells[:, :, None], 20.0).view(2, 2, 56, 56)
    found = heatmaps_to_keypoints(maps, boxes)
    cell_size = (boxes[:, None, 2:] - boxes[:, None, :2]) / 56
    assert ((found[:, :, :2] - points[:, :, :2]).abs() <= cell_size).all()
    assert (found[0, :, 3] > 0.9).all()


def test_decoding_by_the_naive_loop():
    torch.manual_seed(1)
    maps, boxes = torch.randn(3, 4, 14, 14) * 3, torch.tensor([[3.2, 4.1, 30.9, 50.0], [0, 0, 0.5, 9], [1, 1, 20, 21]])
    found = heatmaps_to_keypoints(maps, boxes)
    for n in range(3):
        width, height = (max(float(side), 1.0) for side in boxes[n, 2:] - boxes[n, :2])
        size = (int(torch.tensor(height).ceil()), int(torch.tensor(width).ceil()))
        for k in range(4):
            large = torch.nn.functional.interpolate(maps[n : n + 1, k : k + 1], size=size, mode="bicubic")[0, 0]
            row, column = divmod(int(large.argmax()), size[1])
            x = (column + 0.5) * width / size[1] + float(boxes[n, 0])
            y = (row + 0.5) * height / size[0] + float(boxes[n, 1])
            peak = large[row, column]
            score = 1 / (maps[n, k] - peak).exp().sum()
            torch.testing.assert_close(found[n, k], torch.tensor([x, y, float(peak), float(score)]))


def test_indexing_joining_refusing():
    points = Keypoints(torch.rand(3, 17, 3))
    assert len(points[1]) == 1
    assert len(points[torch.tensor([True, False, True])]) == 2
    assert len(Keypoints.cat([points, points])) == 6
    assert [one.shape for one in points] == [(17, 3)] * 3
    assert points.to("meta").device.type == "meta"
    with pytest.raises(ValueError, match=r"\(N, K, 3\)"):
        Keypoints(torch.rand(17, 3))
    with pytest.raises(ValueError, match=r"boxes \(3, 4\)"):
        points.to_heatmap(torch.zeros(2, 4), 56)
