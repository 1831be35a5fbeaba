"""The protocol between augmentations, their inputs and transforms."""

import numpy as np
import pytest

import hookline.data.transforms as T

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


class ShiftToBoxes(T.Augmentation):
    def get_transform(self, image, boxes):
        x0, y0 = boxes[0, :2].astype(int)
        return T.CropTransform(x0, y0, image.shape[1] - x0, image.shape[0] - y0)


class Plain(T.Augmentation):
    """Named its argument as it liked, as third parties do."""

    def get_transform(self, img):
        return T.HFlipTransform(img.shape[1])


class Wrong(T.Augmentation):
    def get_transform(self, image, scale=1):
        return T.NoOpTransform()


class Broken(T.Augmentation):
    def get_transform(self, image):
        return image


def test_one_object_changes_everything():
    boxes = np.array([[5.0, 4, 10, 12]])
    aug_input = T.AugInput(IMAGE, boxes=boxes, sem_seg=IMAGE[:, :, 0])
    transforms = aug_input.apply_augmentations([T.Resize((40, 60)), Plain(), ShiftToBoxes()])
    assert [type(t) for t in transforms.transforms] == [T.ResizeTransform, T.HFlipTransform, T.CropTransform]
    assert aug_input.boxes.tolist() == [[0, 0, 10, 16]]
    assert np.array_equal(aug_input.image, transforms.apply_image(IMAGE))
    assert np.array_equal(aug_input.sem_seg, transforms.apply_segmentation(IMAGE[:, :, 0]))
    assert np.array_equal(transforms.apply_box(boxes), aug_input.boxes)
    assert boxes.tolist() == [[5, 4, 10, 12]]


def test_apply_augmentations_takes_images_and_inputs():
    image, transforms = T.apply_augmentations([T.HFlipTransform(30)], IMAGE)
    assert np.array_equal(image, IMAGE[:, ::-1])
    aug_input = T.AugInput(IMAGE)
    same, again = T.apply_augmentations([T.HFlipTransform(30)], aug_input)
    assert same is aug_input
    assert len(transforms) == len(again) == 1


def test_lists_nest():
    augmentation = T.AugmentationList([T.AugmentationList([Plain(), Plain()]), T.NoOpTransform()])
    transforms = augmentation(T.AugInput(IMAGE))
    assert len(transforms) == 3
    assert "HFlip" not in repr(augmentation)
    assert "Plain()" in repr(augmentation)


def test_mistakes_are_named():
    with pytest.raises(AttributeError, match=r"Shift.*'boxes'.*Other.*only image"):
        ShiftToBoxes()(type("Other", (), {"__init__": lambda self: setattr(self, "image", IMAGE)})())
    with pytest.raises(TypeError, match=r"without defaults.*scale=1"):
        Wrong()(T.AugInput(IMAGE))
    with pytest.raises(TypeError, match=r"Broken\.get_transform returned ndarray"):
        Broken()(T.AugInput(IMAGE))
    with pytest.raises(TypeError, match="Augmentation or a Transform, got str"):
        T.AugmentationList(["flip"])
    with pytest.raises(NotImplementedError, match="Augmentation"):
        T.Augmentation()(T.AugInput(IMAGE))
