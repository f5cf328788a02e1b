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
