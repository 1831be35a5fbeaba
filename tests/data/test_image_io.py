"""Reading: every kind of file gives the pixels that PIL gives, and bad files are named."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from hookline.data import image_io
from hookline.data.errors import BadSampleError
from hookline.data.image_io import decode_image, read_image, read_label_map


def picture(mode="RGB", size=(37, 23)):
    y, x = np.mgrid[: size[1], : size[0]]
    rgb = np.stack([x * 6, y * 10, (x + y) * 4], axis=2).astype(np.uint8)
    return Image.fromarray(rgb).convert(mode)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_pil(data, mode="RGB"):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert(mode))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("1", "PNG"),
        ("RGB", "TIFF"),
        ("CMYK", "TIFF"),
        ("RGB", "BMP"),
        ("P", "GIF"),
    ],
)
def test_every_kind_of_file_equals_pil(mode, kind):
    data = encoded(picture(mode), kind)
    for result in (decode_image(data), decode_image(data, "BGR")[:, :, ::-1]):
        assert result.dtype == np.uint8
        assert np.array_equal(result, by_pil(data))
    assert np.array_equal(decode_image(data, "L")[:, :, 0], by_pil(data, "L"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), kind, exif=exif)
    result = decode_image(data)
    assert result.shape[:2] == ((23, 37) if orientation < 5 else (37, 23))
    assert np.array_equal(result, by_pil(data))
    assert result.flags.c_contiguous


@pytest.mark.parametrize("byte_order", ["big", "little"])
def test_exif_orientation_in_both_byte_orders(byte_order):
    mark, order = (b"MM", "big") if byte_order == "big" else (b"II", "little")
    number = lambda value, size: value.to_bytes(size, order)  # noqa: E731
    entry = number(0x0112, 2) + number(3, 2) + number(1, 4) + number(6, 2) + b"\0\0"
    tiff = mark + number(42, 2) + number(8, 4) + number(1, 2) + entry + number(0, 4)
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0" + tiff)
    assert decode_image(data).shape == (37, 23, 3)
    assert np.array_equal(decode_image(data), by_pil(data))


def test_damaged_exif_does_not_hinder_reading():
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    assert decode_image(data).shape == (23, 37, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_their_high_byte(kind):
    values = np.linspace(0, 65535, 12).astype(np.uint16).reshape(3, 4)
    result = decode_image(encoded(Image.fromarray(values), kind))
    assert np.array_equal(result, np.repeat((values >> 8).astype(np.uint8)[:, :, None], 3, axis=2))


def test_without_torchvisions_operator_pil_gives_the_same(monkeypatch):
    data = encoded(picture(), "JPEG")
    native = decode_image(data)
    monkeypatch.setattr(image_io, "_DECODE_JPEG", None)
    assert np.array_equal(decode_image(data), native)


def test_real_jpegs_equal_pil(test_data):
    for file in sorted((test_data / "tiny_coco").rglob("*.jpg"))[:30]:
        assert np.array_equal(read_image(file), by_pil(file.read_bytes()))


def test_bad_files_are_named(tmp_path):
    whole = encoded(picture(size=(200, 200)), "JPEG")
    contents = {
        "truncated.jpg": whole[: len(whole) // 2],
        "start.jpg": whole[:3],
        "empty.jpg": b"",
        "text.jpg": b"no image at all",
        "cut.png": encoded(picture(size=(200, 200)), "PNG")[:300],
        "cmyk.jpg": encoded(picture("CMYK", (200, 200)), "JPEG")[:900],
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    for name in [*contents, "missing.jpg"]:
        for read in (read_image, read_label_map):
            with pytest.raises(BadSampleError, match=name.replace(".", r"\.")) as caught:
                read(tmp_path / name)
            assert caught.value.file_name == str(tmp_path / name)
    with pytest.raises(BadSampleError, match="No such file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(BadSampleError, match="truncated"):
        read_image(tmp_path / "truncated.jpg")
    with pytest.raises(BadSampleError):
        read_image(tmp_path)


def test_unknown_format_is_refused():
    with pytest.raises(ValueError, match="'HSV' is none of RGB, BGR, L"):
        decode_image(encoded(picture(), "PNG"), "HSV")


def test_label_maps_keep_their_numbers(tmp_path):
    labels = np.array([[0, 1, 255], [7, 8, 9]], dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "grey.png")
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette([value for i in range(256) for value in (255 - i, i, 128)])
    palette.putdata(labels.reshape(-1).tolist())
    palette.save(tmp_path / "palette.png")
    Image.fromarray(labels.astype(np.uint16) * 257).save(tmp_path / "wide.png")
    picture().save(tmp_path / "colour.png")
    assert np.array_equal(read_label_map(tmp_path / "grey.png"), labels)
    assert np.array_equal(read_label_map(tmp_path / "palette.png"), labels)
    assert np.array_equal(read_label_map(tmp_path / "wide.png"), labels.astype(np.int32) * 257)
    with pytest.raises(BadSampleError, match=r"colour\.png.*'RGB'"):
        read_label_map(tmp_path / "colour.png")
