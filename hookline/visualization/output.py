"""The finished picture."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hookline.io import atomic_open

__all__ = ["VisImage"]


class VisImage:
    """A picture that can be taken as an array or saved.

    Args:
        image: Pillow image or (H, W, 3) uint8 RGB array; it is not copied.
    """

    def __init__(self, image: Image.Image | npt.NDArray[np.uint8]) -> None:
        self._image = image if isinstance(image, Image.Image) else Image.fromarray(image)

    @property
    def height(self) -> int:
        """Pixels."""
        return self._image.height

    @property
    def width(self) -> int:
        """Pixels."""
        return self._image.width

    def get_image(self) -> npt.NDArray[np.uint8]:
        """Return the picture as (H, W, 3) uint8 RGB."""
        return np.array(self._image)

    def save(self, filepath: str | os.PathLike[str]) -> None:
        """Write the picture; the ending of ``filepath`` says the format. The folder is made if it is missing.

        Raises:
            ValueError: if the ending is of no known image format.
        """
        path = Path(filepath)
        image_format = Image.registered_extensions().get(path.suffix.lower())
        if image_format is None:
            raise ValueError(f"{path}: {path.suffix!r} is no ending of an image format; '.jpg' and '.png' are usual")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_open(path, "wb") as file:
            if image_format == "JPEG":
                self._image.save(file, image_format, quality=92, subsampling=0)  # coloured lines stay sharp
            else:
                self._image.save(file, image_format)
