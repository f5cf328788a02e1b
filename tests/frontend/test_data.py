"""Data sets, loaders, text, and readers of files."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

import frontend as ndl
from frontend.data import (
    CIFAR10Dataset,
    Corpus,
    DataLoader,
    Dictionary,
    DigitsDataset,
    MNISTDataset,
    NDArrayDataset,
    RandomAffine,
    RandomCrop,
    RandomFlipHorizontal,
    batchify,
    get_batch,
)

R = np.random.default_rng(3)


def test_data_loader_covers_everything_once() -> None:
    data = NDArrayDataset(np.arange(23), np.arange(23) * 2)
    for shuffle in (False, True):
        loader = DataLoader(data, 5, shuffle)
        batches = [(x.numpy(), y.numpy()) for x, y in loader]
        assert len(batches) == len(loader) == 5 and len(batches[-1][0]) == 3
        seen = np.concatenate([x for x, _ in batches])
        assert sorted(seen) == list(range(23)) and all((y == 2 * x).all() for x, y in batches)
    with pytest.raises(ValueError, match="at least one"):
        DataLoader(data, 0)


def test_transforms_keep_shape() -> None:
    image = R.random((8, 8, 3))
    assert np.array_equal(RandomFlipHorizontal(1.0)(image), image[:, ::-1])
    np.random.seed(1)
    assert RandomCrop(2)(image).shape == image.shape


def test_random_affine_maps() -> None:
    """Nothing where all ranges are 0; a turn by a known angle; the same numbers from the same seed."""
    pytest.importorskip("scipy")
    image = R.random((9, 8, 2)).astype("float32")
    np.testing.assert_allclose(RandomAffine(0, 0, 0)(image), image, atol=1e-6)
    some = RandomAffine(20, 0.1, 1)
    np.random.seed(4)
    first = some(image)
    np.random.seed(4)
    assert np.array_equal(some(image), first) and first.shape == image.shape and first.dtype == np.float32
    assert not np.allclose(first, image, atol=0.01)
    ramp = np.arange(81, dtype="float32").reshape(9, 9, 1)  # rows grow by 9, columns by 1

    class Highest:
        """In place of NumPy's generator: the upper end of each range."""

        def __call__(self, low: float, high: float, size: int | None = None) -> float | np.ndarray:
            return high if size is None else np.full(size, high)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "uniform", Highest())
        turned = RandomAffine(90, 0, 0)(ramp)
        moved = RandomAffine(0, 0, 1)(ramp)
    assert np.allclose(turned, np.rot90(ramp, -1), atol=1e-3) or np.allclose(turned, np.rot90(ramp), atol=1e-3)
    np.testing.assert_allclose(moved[:-1, :-1], ramp[1:, 1:], atol=1e-4)
    assert not moved[-1].any() and not moved[:, -1].any()
    with pytest.raises(ValueError, match="ranges are not negative"):
        RandomAffine(scale=1.0)


def test_digits_train_and_test_are_apart() -> None:
    pytest.importorskip("sklearn")
    train, test = DigitsDataset(True), DigitsDataset(False, transforms=[RandomFlipHorizontal(0.0)])
    assert len(train) + len(test) == 1797 and 300 < len(test) < 400
    assert train[0][0].shape == test[0][0].shape == (1, 8, 8) and train.X.max() <= 1
    together = {x.tobytes() for x in train.X} & {x.tobytes() for x in test.X}
    assert not together


def test_loaders_with_workers_keep_the_order() -> None:
    data = NDArrayDataset(np.arange(50), np.arange(50) * 3)
    plain = [x.numpy().tolist() for x, _ in DataLoader(data, 4)]
    assert [x.numpy().tolist() for x, _ in DataLoader(data, 4, num_workers=3)] == plain
    short = DataLoader(data, 4, drop_last=True, num_workers=2)
    assert len(short) == 12 and [len(x) for x, _ in short] == [4] * 12
    walk = iter(DataLoader(data, 4, num_workers=2))
    next(walk)
    walk.close()  # ends early, without hanging

    class Broken(NDArrayDataset):
        def __getitem__(self, index: int) -> tuple:
            raise RuntimeError("cannot read it")

    with pytest.raises(RuntimeError, match="cannot read it"):
        list(DataLoader(Broken(np.arange(9)), 2, num_workers=2))
    with pytest.raises(ValueError, match="num_workers"):
        DataLoader(data, 4, num_workers=-1)
    pairs = DataLoader(data, 4, collate_fn=lambda examples: len(examples))
    assert list(pairs)[-1] == 2


def idx(array: np.ndarray) -> bytes:
    return b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_mnist_files(tmp_path: Path) -> None:
    images, labels = R.integers(0, 256, (5, 28, 28)).astype(np.uint8), np.arange(5, dtype=np.uint8)
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "labels").write_bytes(idx(labels))
    data = MNISTDataset(str(tmp_path / "images.gz"), str(tmp_path / "labels"), transforms=[RandomFlipHorizontal(1.0)])
    x, y = data[3]
    assert x.shape == (28, 28, 1) and x.dtype == np.float32 and y == 3 and len(data) == 5
    np.testing.assert_allclose(x[:, ::-1, 0], images[3] / 255, rtol=1e-6)
    (tmp_path / "short").write_bytes(idx(labels)[:-1])
    for name, why in (("short", "its header says"), ("images.png", "no idx file")):
        if name == "images.png":
            (tmp_path / name).write_bytes(b"PNG something")
        with pytest.raises(ValueError, match=why):
            MNISTDataset(str(tmp_path / "images.gz"), str(tmp_path / name))
    (tmp_path / "few").write_bytes(idx(labels[:4]))
    with pytest.raises(ValueError, match="5 images, but 4 labels"):
        MNISTDataset(str(tmp_path / "images.gz"), str(tmp_path / "few"))


def test_cifar_files(tmp_path: Path) -> None:
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for number, name in enumerate(names):
        part = {b"data": R.integers(0, 256, (4, 3072)).astype(np.uint8), b"labels": [number] * 4}
        (tmp_path / name).write_bytes(pickle.dumps(part))
    train, test = CIFAR10Dataset(str(tmp_path), True), CIFAR10Dataset(str(tmp_path), False, transforms=[RandomCrop(2)])
    assert len(train) == 20 and len(test) == 4 and train[19][1] == 4 and test[0][1] == 5
    assert train[0][0].shape == test[0][0].shape == (3, 32, 32) and train.X.max() <= 1
    (tmp_path / "test_batch").write_bytes(pickle.dumps(print))
    with pytest.raises(pickle.UnpicklingError, match="no place in a data set"):
        CIFAR10Dataset(str(tmp_path), False)


def test_text(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a b a\nc\nd e\n")
    (tmp_path / "test.txt").write_text("a z\n")
    corpus = Corpus(str(tmp_path), max_lines=2)
    assert corpus.train == [0, 1, 0, 2, 3, 2] and corpus.test == [0, 4, 2]
    assert corpus.dictionary.decode(corpus.train) == ["a", "b", "a", "<eos>", "c", "<eos>"]
    letters = Dictionary("hello")
    assert len(letters) == 4 and letters.decode(letters.encode("hole")) == list("hole")
    with pytest.raises(KeyError):
        letters.encode("x")
    data = batchify(np.arange(11), 2)
    assert data.tolist() == [[0, 5], [1, 6], [2, 7], [3, 8], [4, 9]]
    x, y = get_batch(data, 0, 3)
    assert x.shape == (3, 2) and y.numpy().tolist() == [1, 6, 2, 7, 3, 8]
    assert get_batch(data, 3, 3)[0].numpy().tolist() == [[3, 8]]
    with pytest.raises(IndexError, match="no row behind"):
        get_batch(data, 4, 3)
    with pytest.raises(ValueError, match="do not fill"):
        batchify([1], 2)
    assert isinstance(x, ndl.Tensor)
