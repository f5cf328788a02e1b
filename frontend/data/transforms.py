"""Random changes of images, for augmentation."""

from __future__ import annotations

import numpy as np


class Transform:
    def __call__(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class RandomFlipHorizontal(Transform):
    """Mirrors an H x W x C image with probability p."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, img: np.ndarray) -> np.ndarray:
        return img[:, ::-1, :] if np.random.rand() < self.p else img


class RandomCrop(Transform):
    """Shifts an H x W x C image by up to `padding` pixels each way; zeros come in at the border."""

    def __init__(self, padding: int = 3) -> None:
        self.padding = padding

    def __call__(self, img: np.ndarray) -> np.ndarray:
        down, right = np.random.randint(-self.padding, self.padding + 1, 2)
        p = self.padding
        big = np.pad(img, ((p, p), (p, p), (0, 0)))
        return big[p + down : p + down + img.shape[0], p + right : p + right + img.shape[1]]


class RandomAffine(Transform):
    """Turns, stretches and shifts an H x W x C image about its middle; zeros come in at the border. Uses scipy.

    Args:
        degrees: turned by up to so many, either way.
        scale: either axis is stretched or shrunk by up to this part.
        shift: moved by up to so many pixels along either axis.

    Raises:
        ValueError: a range is negative, or scale is not below 1.
        ImportError: scipy is missing.
    """

    def __init__(self, degrees: float = 10.0, scale: float = 0.1, shift: float = 0.5) -> None:
        if min(degrees, scale, shift) < 0 or scale >= 1:
            raise ValueError(f"ranges are not negative, and scale is below 1; got {degrees}, {scale}, {shift}")
        try:
            from scipy import ndimage
        except ImportError as error:
            raise ImportError("RandomAffine needs scipy: pip install 'tcomp[data]'") from error
        self.degrees, self.scale, self.shift = degrees, scale, shift
        self._resample = ndimage.affine_transform

    def __call__(self, img: np.ndarray) -> np.ndarray:
        angle = np.deg2rad(np.random.uniform(-self.degrees, self.degrees))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        stretch = 1 + np.random.uniform(-self.scale, self.scale, 2)
        matrix = turn / stretch  # from a pixel of the result to one of the image
        middle = (np.array(img.shape[:2]) - 1) / 2
        offset = middle - matrix @ middle + np.random.uniform(-self.shift, self.shift, 2)
        channels = [self._resample(img[:, :, c], matrix, offset, order=1) for c in range(img.shape[2])]
        return np.stack(channels, axis=2)
