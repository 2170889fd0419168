"""What ``run`` is fed: images, .npy tensors, and files that are neither."""

from __future__ import annotations

import os
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from tvm_shufflenet.errors import BadInput
from tvm_shufflenet.packages.inputs import DEVIATION, MEAN, read_input, write_array

SHAPE = (1, 3, 32, 32)
COLOUR = (200, 100, 30)
GARBAGE = bytes(range(255, 55, -1))


def normalised(colour) -> np.ndarray:
    return (np.array(colour, dtype=np.float32) / 255 - MEAN) / DEVIATION


def picture(path, size, mode="RGB", colour=COLOUR) -> str:
    Image.new(mode, size, colour).save(path)
    return str(path)


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (301, 7), (7, 301), (33, 47), (640, 480)])
@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 3, 48, 20), (2, 3, 7, 7)])
def test_a_plain_image_of_any_size_becomes_its_normalised_colour(tmp_path, size, shape):
    data = read_input(picture(tmp_path / "plain.png", size), shape)
    assert data.dtype == np.float32 and data.flags.c_contiguous
    expected = np.broadcast_to(normalised(COLOUR).reshape(1, 3, 1, 1), shape)
    np.testing.assert_allclose(data, expected, atol=1e-6)


AWKWARD = [(301, 257), (257, 301), (333, 500), (1000, 667), (255, 1023), (31, 47), (1, 300), (500, 375), (225, 224)]


@pytest.mark.parametrize("crop", [224, 32, 97])
@pytest.mark.parametrize("size", AWKWARD)
def test_an_image_is_resized_and_cropped_as_torchvision_does(tmp_path, size, crop):
    """Its ``Resize(int)`` and ``CenterCrop``: the longer side is cut off to whole pixels, the corner is rounded."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "noise.png")
    shorter = crop * 256 // 224
    longer = int(shorter * max(size) / min(size))
    whole = image.resize((shorter, longer) if size[0] <= size[1] else (longer, shorter), Image.Resampling.BILINEAR)
    left, top = (round((extent - crop) / 2.0) for extent in whole.size)
    expected = np.asarray(whole.crop((left, top, left + crop, top + crop)), dtype=np.float32)
    data = read_input(str(tmp_path / "noise.png"), (1, 3, crop, crop))[0]
    np.testing.assert_allclose((data.transpose(1, 2, 0) * DEVIATION + MEAN) * 255, expected, atol=1e-3)


def test_the_centre_is_kept_upright(tmp_path):
    """Left half red, right half blue, a green band on top: the crop sees all three where they were."""
    pixels = np.zeros((224, 448, 3), dtype=np.uint8)
    pixels[:, :224, 0] = pixels[:, 224:, 2] = 255
    pixels[:56] = (0, 255, 0)
    Image.fromarray(pixels).save(tmp_path / "halves.png")
    data = read_input(str(tmp_path / "halves.png"), (1, 3, 224, 224))[0]
    red, green, blue = (normalised(colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    np.testing.assert_allclose(data[:, 112, 20], red, atol=1e-5)
    np.testing.assert_allclose(data[:, 112, 203], blue, atol=1e-5)
    np.testing.assert_allclose(data[:, 20, 112], green, atol=1e-5)


def test_only_the_middle_of_a_long_image_is_seen(tmp_path):
    """224/256 of the shorter side is kept, however long the other one is."""
    pixels = np.full((64, 400, 3), 255, dtype=np.uint8)
    pixels[:, 160:240] = 0
    Image.fromarray(pixels).save(tmp_path / "long.png")
    data = read_input(str(tmp_path / "long.png"), SHAPE)
    np.testing.assert_allclose(data[0, :, 16, 16], normalised((0, 0, 0)), atol=1e-5)
    assert (data[0, 0] < 0).all()


@pytest.mark.parametrize(("mode", "colour"), [("L", 77), ("RGBA", (*COLOUR, 255)), ("1", 1), ("P", 0)])
def test_other_kinds_of_image_are_converted(tmp_path, mode, colour):
    data = read_input(picture(tmp_path / "other.png", (40, 40), mode, colour), SHAPE)
    assert data.shape == SHAPE and np.isfinite(data).all()


def test_a_jpeg_is_an_image_too(tmp_path):
    data = read_input(picture(tmp_path / "photo.jpg", (50, 40)), SHAPE)
    np.testing.assert_allclose(data[0, :, 16, 16], normalised(COLOUR), atol=0.1)


def test_an_image_does_not_fit_a_network_of_other_channels(tmp_path):
    with pytest.raises(BadInput, match="4 channels"):
        read_input(picture(tmp_path / "plain.png", (8, 8)), (1, 4, 8, 8))


def test_a_tensor_comes_back_as_it_was_written(tmp_path):
    data = np.random.default_rng(0).standard_normal((2, 3, 5, 7), dtype=np.float32)
    write_array(tmp_path / "in.npy", data)
    np.testing.assert_array_equal(read_input(str(tmp_path / "in.npy"), SHAPE), data)
    assert os.listdir(tmp_path) == ["in.npy"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"no file .*missing\.png"):
        read_input(str(tmp_path / "missing.png"), SHAPE)
    with pytest.raises(BadInput, match="no file"):
        read_input(str(tmp_path), SHAPE)


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int64", ">f4"])
def test_another_dtype_is_refused_by_name(tmp_path, dtype):
    np.save(tmp_path / "in.npy", np.zeros(SHAPE, dtype=dtype))
    with pytest.raises(BadInput, match=f"holds {np.dtype(dtype)}"):
        read_input(str(tmp_path / "in.npy"), SHAPE)


def damaged_arrays(folder):
    """Name and bytes of files that call themselves .npy and are none."""
    np.save(folder / "good.npy", np.zeros(SHAPE, dtype=np.float32))
    good = (folder / "good.npy").read_bytes()
    np.savez(folder / "zip.npz", np.zeros(3, dtype=np.float32))
    np.save(folder / "object.npy", np.array([{"a": 1}], dtype=object))
    return {
        "empty": b"",
        "garbage": GARBAGE,
        "header only": good[:20],
        "truncated": good[:-100],
        "wrong magic": b"\x93NUMPX" + good[6:],
        "an archive": (folder / "zip.npz").read_bytes(),
        "pickled": (folder / "object.npy").read_bytes(),
        "huger than memory": good.replace(b"(1, 3, 32, 32)", b"(99999999999,)"),
    }


def test_damaged_arrays_are_refused(tmp_path):
    for name, content in damaged_arrays(tmp_path).items():
        (tmp_path / "in.npy").write_bytes(content)
        with pytest.raises(BadInput) as refused:
            read_input(str(tmp_path / "in.npy"), SHAPE)
        assert "in.npy" in str(refused.value), name


def test_a_photograph_is_turned_upright(tmp_path):
    """All eight EXIF orientations, against Pillow's own rotation."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
        ImageOps.exif_transpose(Image.open(tmp_path / "turned.png")).save(tmp_path / "upright.png")
        turned, upright = (read_input(str(tmp_path / f"{name}.png"), SHAPE) for name in ("turned", "upright"))
        np.testing.assert_array_equal(turned, upright, err_msg=str(orientation))


@pytest.mark.parametrize("size", [(301, 17), (17, 301), (640, 480), (33, 47), (224, 224)])
@pytest.mark.parametrize("crop", [(224, 224), (193, 225), (32, 32)])
def test_the_crop_is_that_of_the_whole_image_resized(tmp_path, size, crop):
    """As torchvision does it: resize, then centre crop. At most one grey level apart, by rounding."""
    pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "image.png")
    width, height = size
    if width * crop[0] <= height * crop[1]:
        width, height = crop[1] * 256 // 224, int(crop[1] * 256 // 224 * height / width)
    else:
        width, height = int(crop[0] * 256 // 224 * width / height), crop[0] * 256 // 224
    left, top = round((width - crop[1]) / 2), round((height - crop[0]) / 2)
    whole = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
    expected = (whole[top : top + crop[0], left : left + crop[1]] / 255 - MEAN) / DEVIATION
    data = read_input(str(tmp_path / "image.png"), (1, 3, *crop))[0]
    np.testing.assert_allclose(data.transpose(1, 2, 0), expected, atol=1.01 / 255 / DEVIATION.min())


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000)])
def test_a_long_thin_image_is_not_resized_in_full(tmp_path, size):
    """With its shorter side at 256 pixels, this image would be four gigabytes."""
    path = picture(tmp_path / "thin.png", size)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = read_input(path, (1, 3, 224, 224))
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    np.testing.assert_allclose(data[0, :, 100, 100], normalised(COLOUR), atol=1e-6)
    assert grown_kib < 200_000


def test_deep_pixels_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((40, 40), 77 * 256 + 5, dtype=np.uint16)).save(tmp_path / "deep.png")
    data = read_input(str(tmp_path / "deep.png"), SHAPE)
    np.testing.assert_allclose(data[0, :, 16, 16], normalised((77, 77, 77)), atol=1e-6)
    Image.fromarray(np.full((40, 40), 1.5, dtype=np.float32)).save(tmp_path / "depth.tiff")
    with pytest.raises(BadInput, match="32 bits a pixel"):
        read_input(str(tmp_path / "depth.tiff"), SHAPE)


def test_every_image_of_a_batch_is_the_image(tmp_path):
    data = read_input(picture(tmp_path / "plain.png", (50, 40)), (3, 3, 17, 33))
    assert data.shape == (3, 3, 17, 33) and data.flags.c_contiguous
    assert (data == data[0]).all()


def test_a_decompression_bomb_is_refused(tmp_path):
    """A hundred bytes that call themselves 900 million pixels."""
    Image.new("1", (8, 8)).save(tmp_path / "bomb.png")
    content = bytearray((tmp_path / "bomb.png").read_bytes())
    content[16:24] = struct.pack(">II", 30000, 30000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(BadInput, match=r"bomb\.png.*decompression bomb.*make it smaller"):
        read_input(str(tmp_path / "bomb.png"), SHAPE)


def test_what_only_calls_itself_an_image_is_refused(tmp_path):
    picture(tmp_path / "photo.jpg", (64, 64))
    photo = (tmp_path / "photo.jpg").read_bytes()
    files = {
        "text.png": b"a picture of a cat\n",
        "empty.jpg": b"",
        "cut.jpg": photo[: len(photo) // 2],
        "page.jpg": b"<html><body>404 Not Found</body></html>",
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "header.png": b"\x89PNG\r\n\x1a\n",
        "lies.gif": b"GIF89a" + bytes(100),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match="is no image that can be read") as refused:
            read_input(str(tmp_path / name), SHAPE)
        assert name in str(refused.value) and "PNG or JPEG" in str(refused.value)
    with pytest.raises(BadInput, match="it is empty"):
        read_input(str(tmp_path / "empty.jpg"), SHAPE)


def test_damaged_images_are_refused(tmp_path):
    good = picture(tmp_path / "good.png", (64, 64), colour=(1, 2, 3))
    content = (tmp_path / "good.png").read_bytes()
    for name, damaged in {"empty": b"", "garbage": GARBAGE, "truncated": content[: len(content) // 2]}.items():
        (tmp_path / "bad.png").write_bytes(damaged)
        with pytest.raises(BadInput, match=r"bad\.png"):
            read_input(str(tmp_path / "bad.png"), SHAPE)
        assert read_input(good, SHAPE).shape == SHAPE, name


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(BadInput, match="cannot write"):
        write_array(tmp_path / "missing" / "out.npy", np.zeros(3, dtype=np.float32))
