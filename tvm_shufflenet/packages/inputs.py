"""Reads inputs of ``run`` (tensors and images) and writes its outputs."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BadInput
from ..precision import FLOAT32
from ..support.files import open_file, write_output

if TYPE_CHECKING:
    from PIL import Image

# Mean and deviation that ImageNet models of PyTorch are trained with.
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)
RESIZE = 256, 224  # so many pixels of the shorter side for so many of the crop
MOST_PIXELS = 1 << 24
# What turns a picture upright, by the value of this EXIF tag.
ORIENTATION = 0x0112
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def read_input(path: str, shape: tuple[int, ...], dtype: str = FLOAT32.data) -> np.ndarray:
    """A .npy tensor of ``shape`` and ``dtype``, or an image prepared as ImageNet models expect it. Raises BadInput."""
    if not Path(path).is_file():
        raise BadInput(f"there is no file {path}", "", "name a .npy file or an image")
    return _read_array(path, dtype) if path.endswith(".npy") else _read_image(path, shape).astype(dtype, copy=False)


def _read_array(path: str, dtype: str) -> np.ndarray:
    try:
        with open_file(path) as file:  # numpy.load would also open archives
            data = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError) as exc:
        raise BadInput(f"{path} is no .npy tensor", str(exc), "save it with numpy.save") from exc
    if data.dtype != dtype:
        raise BadInput(
            f"{path} holds {data.dtype}, the network takes {dtype}", "", f"convert it with .astype('{dtype}')"
        )
    return data


def _read_image(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Shorter side resized to 256/224 of the crop, centre crop, scaled to 0..1, normalised: (N, 3, H, W).

    Upright as its EXIF orientation says; every image of the batch is the same one.
    """
    if len(shape) != 4:
        raise BadInput(f"the network takes {shape}, no batch of images", "", "give a .npy tensor")
    batch, channels, height, width = shape
    if channels != 3:
        raise BadInput(f"the network takes {channels} channels, an image has 3", "", "give a .npy tensor")
    image = _cropped(_decoded(path), height, width)
    pixels = (np.asarray(image, dtype=np.float32) / 255 - MEAN) / DEVIATION
    return np.ascontiguousarray(np.broadcast_to(pixels.transpose(2, 0, 1), (batch, 3, height, width)))


def _decoded(path: str) -> Image.Image:
    """The picture in ``path``, RGB and upright. Raises BadInput."""
    from PIL import Image

    if Path(path).stat().st_size == 0:
        raise BadInput(f"{path} is no image that can be read", "it is empty", "give a PNG or JPEG file")
    try:
        with open_file(path) as file, warnings.catch_warnings(), Image.open(file) as opened:
            warnings.simplefilter("ignore")  # Pillow warns of large images
            image = _eight_bits(opened, path).convert("RGB")
            turn = TURNS.get(opened.getexif().get(ORIENTATION))
    except BadInput:
        raise
    except Exception as exc:  # Pillow's decoders raise whatever a damaged file leads them to, SyntaxError included
        large = isinstance(exc, Image.DecompressionBombError)
        raise BadInput(
            f"{path} is no image that can be read",
            str(exc) or type(exc).__name__,
            "make it smaller" if large else "give a PNG or JPEG file",
        ) from exc
    return image if turn is None else image.transpose(Image.Transpose[turn])


def _eight_bits(image: Image.Image, path: str) -> Image.Image:
    """``image`` with 8 bits a channel, which Pillow only clips deeper ones to. Raises BadInput for 32 bits."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise BadInput(f"{path} has 32 bits a pixel", "it holds measurements, not a picture", "give a .npy tensor")
    return image


def _cropped(image: Image.Image, height: int, width: int) -> Image.Image:
    """The centre of ``image``, resized; to the pixel what torchvision's presets make of it where the crop is a square.

    The rest of a very long thin one is not resized, it may be gigabytes: its pixels may then be off by one level.
    """
    from PIL import Image

    across, down = _resized(image.width, image.height, height, width)
    left, top = round((across - width) / 2), round((down - height) / 2)  # of two as near the even one, as torchvision
    if across * down <= MOST_PIXELS:
        whole = image.resize((across, down), Image.Resampling.BILINEAR)
        return whole.crop((left, top, left + width, top + height))
    ratios = image.width / across, image.height / down
    box = left * ratios[0], top * ratios[1], (left + width) * ratios[0], (top + height) * ratios[1]
    box = *box[:2], min(image.width, box[2]), min(image.height, box[3])
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def _resized(across: int, down: int, height: int, width: int) -> tuple[int, int]:
    """Width and height of the whole image after the resize: the side that bounds it is 256/224 of the crop's, and the
    other one keeps the ratio, cut off to whole pixels as torchvision cuts it.
    """
    if across * height <= down * width:
        side = width * RESIZE[0] // RESIZE[1]
        return side, max(height, int(side * down / across))
    side = height * RESIZE[0] // RESIZE[1]
    return max(width, int(side * across / down)), side


def write_array(path: Path, data: np.ndarray) -> None:
    """Write a .npy file whole or not at all."""
    content = io.BytesIO()
    np.save(content, data)
    try:
        write_output(path, content.getvalue())
    except OSError as exc:
        raise BadInput(f"cannot write {path}", str(exc), "name another --output") from exc
