"""Arrays and tensors share memory where they can."""

import numpy as np
import torch

import hookline.data.transforms as T


def test_image_to_chw():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    for view in (image, image[:, ::-1], image[::-1, :, ::-1], image[3:9, 4:10]):
        result = T.image_to_chw(view)
        assert result.is_contiguous()
        assert torch.equal(result, torch.from_numpy(view.copy()).permute(2, 0, 1))
    assert T.image_to_chw(image[:, :, 0]).shape == (1, 20, 30)
    assert T.image_to_tensor(image).data_ptr() == image.ctypes.data
    fixed = image.copy()
    fixed.flags.writeable = False
    assert torch.equal(T.image_to_tensor(fixed), torch.from_numpy(image))
