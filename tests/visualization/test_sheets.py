from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hookline.structures import Boxes, BoxMode, Instances
from hookline.visualization import VisImage, draw_batch, draw_comparison, draw_sample, grid
from hookline.visualization.sheets import sample_image


def sample(height=40, width=60):
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[0] = 200
    boxes = Boxes(torch.tensor([[5.0, 5, 30, 30]]))
    instances = Instances((height, width), gt_boxes=boxes, gt_classes=torch.tensor([0]))
    return {"image": image, "instances": instances}


@pytest.mark.parametrize(("order", "expected"), [("RGB", [200, 0, 0]), ("BGR", [0, 0, 200])])
def test_channel_order(order, expected):
    assert sample_image(sample(), order)[0, 0].tolist() == expected
    assert draw_sample(sample(), order).get_image()[39, 59].tolist() == expected


def test_grey_and_float_images():
    grey = {"image": torch.full((1, 4, 5), 300.0)}
    assert sample_image(grey, "L").shape == (4, 5, 3)
    assert sample_image(grey, "L").max() == 255


@pytest.mark.parametrize(("order", "words"), [("bgr", "image_format is"), ("L", "does not have the shape")])
def test_wrong_formats_are_refused(order, words):
    with pytest.raises(ValueError, match=words):
        sample_image(sample(), order)


def test_grid_shows_every_picture_whole():
    colors = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    sizes = [(30, 60), (60, 30), (50, 50), (10, 90), (60, 90)]
    pictures = [np.full((*size, 3), color, np.uint8) for size, color in zip(sizes, colors, strict=True)]
    sheet = grid(pictures, columns=2).get_image()
    for size, color in zip(sizes, colors, strict=True):
        assert (sheet == color).all(2).sum() == size[0] * size[1]
    assert sheet.shape[1] == 2 * 90 + 3 * 6


def test_grid_shrinks_to_the_cell_and_leaves_room_for_captions():
    pictures = [VisImage(np.full((600, 1200, 3), 200, np.uint8))] * 3
    plain = grid(pictures, cell=(100, 100))
    assert plain.width <= 3 * 106 + 6
    named = grid(pictures, cell=(100, 100), captions=["one", "two", "three"])
    assert named.height > plain.height


def test_grid_refusals():
    with pytest.raises(ValueError, match="at least one"):
        grid([])
    with pytest.raises(ValueError, match="1 pictures have 2 captions"):
        grid([np.zeros((5, 5, 3), np.uint8)], captions=["a", "b"])


def test_batch_and_comparison():
    batch = [sample(), sample(60, 40), sample()]
    assert draw_batch(batch, "RGB", SimpleNamespace(thing_classes=["a"]), max_images=2).width < 3 * 60
    found = Instances((40, 60), pred_boxes=Boxes(torch.tensor([[1.0, 1, 9, 9]])), scores=torch.tensor([0.5]))
    image = np.full((40, 60, 3), 9, np.uint8)
    annotation = {"bbox": [1, 1, 8, 8], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    both = draw_comparison(image, {"annotations": [annotation]}, found)
    assert both.width > 120
    assert draw_comparison(image, {"file_name": "x"}, found).width == 60


def test_saving(tmp_path):
    picture = VisImage(np.full((20, 30, 3), (200, 30, 90), np.uint8))
    from PIL import Image

    for name in ("new/folder/a.png", "b.jpg", "c.webp"):
        picture.save(tmp_path / name)
        with Image.open(tmp_path / name) as file:
            assert file.size == (30, 20)
    assert not list(tmp_path.rglob("*.tmp"))
    with pytest.raises(ValueError, match=r"'\.txt' is no ending"):
        picture.save(tmp_path / "a.txt")
