"""What ``run`` is fed: tensors and images; and what it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import BadInput

# Mean and deviation that ImageNet models of PyTorch are trained with.
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)
RESIZE = 256 / 224


def read_input(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """A .npy tensor of ``shape`` float32, or an image prepared as ImageNet models expect it. Raises BadInput."""
    if not Path(path).is_file():
        raise BadInput(f"there is no file {path}", "", "name a .npy file or an image")
    return _read_array(path) if path.endswith(".npy") else _read_image(path, shape)


def _read_array(path: str) -> np.ndarray:
    try:
        with open(path, "rb") as file:  # numpy.load would also open archives
            data = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError) as exc:
        raise BadInput(f"{path} is no .npy tensor", str(exc), "save it with numpy.save") from exc
    if data.dtype != np.float32:
        raise BadInput(
            f"{path} holds {data.dtype}, the network takes float32", "", "convert it with .astype('float32')"
        )
    return data


def _read_image(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Shorter side resized to 256/224 of the crop, centre crop, scaled to 0..1, normalised: (1, 3, H, W)."""
    from PIL import Image, UnidentifiedImageError

    batch, channels, height, width = shape
    if channels != 3:
        raise BadInput(f"the network takes {channels} channels, an image has 3", "", "give a .npy tensor")
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as exc:
        raise BadInput(f"{path} is no image that can be read", str(exc), "give a PNG or JPEG file") from exc
    scale = RESIZE * max(height / image.height, width / image.width)
    size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    pixels = (np.asarray(image, dtype=np.float32) / 255 - MEAN) / DEVIATION
    return np.ascontiguousarray(np.broadcast_to(pixels.transpose(2, 0, 1), (batch, 3, height, width)))


def write_array(path: Path, data: np.ndarray) -> None:
    """Write a .npy file whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    try:
        with open(temporary, "wb") as file:
            np.save(file, data)
        temporary.replace(path)
    except OSError as exc:
        raise BadInput(f"cannot write {path}", str(exc), "name another --output") from exc
