import pytest
import torch

from hookline.structures import ImageList


def test_images_keep_their_pixels_and_the_rest_is_padding():
    images = [torch.rand(3, 5, 7), torch.rand(3, 6, 4)]
    batch = ImageList.from_tensors(images, pad_value=-1.0)
    assert batch.tensor.shape == (2, 3, 6, 7)
    assert batch.image_sizes == [(5, 7), (6, 4)]
    for index, image in enumerate(images):
        torch.testing.assert_close(batch[index], image, rtol=0, atol=0)
    assert (batch.tensor == -1).sum() == 3 * (2 * 42 - 35 - 24)


@pytest.mark.parametrize("size_divisibility", [0, 1, 2, 32])
def test_sides_become_multiples(size_divisibility):
    batch = ImageList.from_tensors([torch.zeros(3, 33, 64), torch.zeros(3, 10, 65)], size_divisibility)
    assert batch.tensor.shape[2:] == {0: (33, 65), 1: (33, 65), 2: (34, 66), 32: (64, 96)}[size_divisibility]


def test_constraints_of_a_backbone_come_first():
    images = [torch.zeros(3, 33, 64)]
    square = ImageList.from_tensors(images, 32, padding_constraints={"square_size": 128})
    assert square.tensor.shape[2:] == (128, 128)
    other = ImageList.from_tensors(images, 32, padding_constraints={"size_divisibility": 5})
    assert other.tensor.shape[2:] == (35, 65)
    with pytest.raises(ValueError, match="33x64 pixels does not fit into a square of side 50"):
        ImageList.from_tensors(images, padding_constraints={"square_size": 50})
    with pytest.raises(ValueError, match="unknown padding constraint 'square'"):
        ImageList.from_tensors(images, padding_constraints={"square": 50})


def test_images_of_one_size_are_stacked():
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    batch = ImageList.from_tensors(images, 32)
    torch.testing.assert_close(batch.tensor, torch.stack(images), rtol=0, atol=0)


def test_label_maps_without_channels():
    batch = ImageList.from_tensors([torch.ones(2, 3, dtype=torch.int64), torch.ones(3, 2, dtype=torch.int64)], 0, 255)
    assert batch.tensor.tolist()[0] == [[1, 1, 1], [1, 1, 1], [255, 255, 255]]


def test_gradients_reach_the_images():
    images = [torch.rand(1, 2, 2, requires_grad=True), torch.rand(1, 3, 3, requires_grad=True)]
    ImageList.from_tensors(images).tensor.sum().backward()
    for image in images:
        assert image.grad.eq(1).all()


def test_refuses_images_that_do_not_fit_together():
    with pytest.raises(ValueError, match="at least one image"):
        ImageList.from_tensors([])
    with pytest.raises(ValueError, match=r"image 1 has shape \(1, 4, 4\)"):
        ImageList.from_tensors([torch.zeros(3, 4, 4), torch.zeros(1, 4, 4)])
    with pytest.raises(ValueError, match=r"image 1 is torch\.uint8 on cpu"):
        ImageList.from_tensors([torch.zeros(3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)])


def test_to_keeps_the_sizes():
    batch = ImageList.from_tensors([torch.zeros(3, 4, 4)]).to("meta")
    assert batch.device.type == "meta"
    assert batch.image_sizes == [(4, 4)]
    assert len(batch) == 1
