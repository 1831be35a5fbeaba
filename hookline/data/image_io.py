"""Reading images and label maps.

JPEG files, the bulk of every data set, are decoded by torchvision's operator straight into a tensor. Everything that it
cannot decode, or would decode to other pixels (CMYK, palettes, 16 bits, alpha, PNG, TIFF ...), goes through PIL, with
the same result. Axes: H height, W width, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from os import PathLike, fspath

import numpy as np
import torch
import torchvision.io  # noqa: F401  # loads the operators below
from PIL import Image, ImageOps

from hookline.data.errors import BadSampleError
from hookline.io.paths import PathManager

__all__ = ["IMAGE_FORMATS", "decode_image", "read_image", "read_label_map"]

IMAGE_FORMATS = ("RGB", "BGR", "L")
_JPEG_START = b"\xff\xd8\xff"
_UNCHANGED = 0  # torchvision.io.ImageReadMode.UNCHANGED


def _jpeg_operator() -> Callable[[torch.Tensor, int, bool], torch.Tensor] | None:
    """Return torchvision's decoder, or None where this build or release has none: PIL gives the same pixels, slower.

    The operator is taken itself, since its Python wrapper warns on each call that it moves to another package.
    """
    try:
        return torch.ops.image.decode_jpeg
    except AttributeError:
        return None


_DECODE_JPEG = _jpeg_operator()


def read_image(file_name: str | PathLike, format: str = "RGB") -> np.ndarray:
    """Read an image as it is meant to be seen: turned as its EXIF orientation says.

    Args:
        file_name: anything that the path manager opens.
        format: ``"RGB"``, ``"BGR"`` or ``"L"`` (grey).

    Returns:
        uint8 (H, W, 3), or (H, W, 1) for ``"L"``. For ``"BGR"`` it is a view with the channels reversed (a negative
        stride): copy it before giving it to something that wants its own memory.

    Raises:
        BadSampleError: the file is missing, no image, or truncated.
        ValueError: unknown ``format``.
    """
    name = fspath(file_name)
    return decode_image(_read_bytes(name), format, name)


def decode_image(data: bytes, format: str = "RGB", file_name: str | None = None) -> np.ndarray:
    """Decode the bytes of an image file; see :func:`read_image`.

    Args:
        data: content of the file.
        format: ``"RGB"``, ``"BGR"`` or ``"L"``.
        file_name: named in errors.

    Returns:
        uint8 (H, W, 3) or (H, W, 1).

    Raises:
        BadSampleError: ``data`` is no image, or truncated.
        ValueError: unknown ``format``.
    """
    if format not in IMAGE_FORMATS:
        raise ValueError(f"image format {format!r} is none of {', '.join(IMAGE_FORMATS)}")
    image = None
    if _DECODE_JPEG is not None and format != "L" and data.startswith(_JPEG_START):
        image = _decode_jpeg(data, file_name)
    if image is None:
        image = _decode_with_pil(data, "L" if format == "L" else "RGB", file_name)
    return image[:, :, ::-1] if format == "BGR" else image


def read_label_map(file_name: str | PathLike) -> np.ndarray:
    """Read a map of class numbers: a PNG or other lossless file whose values or palette indices are the classes.

    Args:
        file_name: anything that the path manager opens.

    Returns:
        uint8 or int32 (H, W).

    Raises:
        BadSampleError: the file is missing, no image, truncated, or has colours instead of numbers.
    """
    name = fspath(file_name)
    image = _open_with_pil(_read_bytes(name), name)
    if image.mode in ("P", "L"):
        return np.array(image)
    if image.mode == "1":
        return np.array(image, dtype=np.uint8)
    if image.mode.startswith("I"):
        return np.array(image, dtype=np.int32)
    raise BadSampleError(
        f"a label map needs one number per pixel (a grey or palette image), but this has mode {image.mode!r}", name
    )


def _read_bytes(file_name: str) -> bytes:
    try:
        with PathManager.open(file_name, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadSampleError(f"cannot be read: {error.strerror or error}", file_name) from error


def _decode_jpeg(data: bytes, file_name: str | None) -> np.ndarray | None:
    """Decode a JPEG to RGB, or return None for those that only PIL does right (CMYK).

    Raises:
        BadSampleError: damaged, or no JPEG after its first bytes.
    """
    assert _DECODE_JPEG is not None
    # frombuffer warns about memory that cannot be written, hence the copy of the (small) compressed bytes
    source = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    try:
        tensor = _DECODE_JPEG(source, _UNCHANGED, True)
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rpartition(", ")[2]
        raise BadSampleError(f"is no readable JPEG: {reason}", file_name) from error
    if tensor.shape[0] == 1:
        return tensor[0].unsqueeze(-1).repeat(1, 1, 3).numpy()
    if tensor.shape[0] != 3:
        return None
    # the decoder writes rows of RGB triples, so this is a view; only turned images have other strides
    return np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())


def _open_with_pil(data: bytes, file_name: str | None) -> Image.Image:
    """Open, load completely and turn upright.

    Raises:
        BadSampleError: no image, truncated, or of a size that only an attack has.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        # the text of PIL's own message for unknown files holds the address of the buffer
        reason = "unknown file format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise BadSampleError(f"is no readable image: {reason}", file_name) from error


def _decode_with_pil(data: bytes, mode: str, file_name: str | None) -> np.ndarray:
    image = _open_with_pil(data, file_name)
    if image.mode.startswith("I"):
        # convert() would clip 16 bits at 255; their high byte is what decoders of 16-bit colour give as well
        image = Image.fromarray((np.array(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        image = image.convert("L")  # PIL knows no way from numbers to colour but this
    array = np.array(image if image.mode == mode else image.convert(mode))
    return array if array.ndim == 3 else array[:, :, np.newaxis]
