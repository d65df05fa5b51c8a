"""The course's helpers: its two data sets from their HDF5 files, labels, and random mini-batches."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "as_column",
    "convert_to_one_hot",
    "load_happy_dataset",
    "load_signs_dataset",
    "normalize",
    "random_mini_batches",
]

Array = NDArray[Any]
Dataset = tuple[Array, Array, Array, Array, Array]


def convert_to_one_hot(Y: ArrayLike, C: int) -> Array:
    """Labels as columns of zeros with a one: (C, m), as the course has it; ``.T`` is what a model wants.

    Parameters
    ----------
    Y : array_like
        Integer labels 0 .. C - 1, of any shape.
    C : int
        Number of classes.

    Raises
    ------
    ValueError
        If a label is no integer or lies outside the classes.

    Examples
    --------
    >>> from fastconv import course
    >>> course.convert_to_one_hot([[2, 0]], 3)
    array([[0., 1.],
           [0., 0.],
           [1., 0.]])
    """
    labels = np.asarray(Y).reshape(-1)
    if labels.dtype.kind not in "iub":
        raise ValueError(f"convert_to_one_hot: labels must be integers, received dtype {labels.dtype}")
    if labels.size and not (labels.min() >= 0 and labels.max() < C):
        raise ValueError(f"convert_to_one_hot: labels must be 0 .. {C - 1}, received {labels.min()} .. {labels.max()}")
    one_hot: Array = np.eye(C)[labels].T
    return one_hot


def as_column(Y: ArrayLike) -> Array:
    """Labels as a column, (m, 1), whichever way they lay: (m,), (1, m) or (m, 1).

    Examples
    --------
    >>> from fastconv import course
    >>> course.as_column([[1, 0, 1]]).shape
    (3, 1)
    """
    return np.asarray(Y).reshape(-1, 1)


def normalize(X: ArrayLike) -> NDArray[np.float32]:
    """Pixels 0 .. 255 as float32 in 0 .. 1.

    Examples
    --------
    >>> from fastconv import course
    >>> course.normalize([0, 255])
    array([0., 1.], dtype=float32)
    """
    scaled: NDArray[np.float32] = np.asarray(X).astype(np.float32) / np.float32(255)
    return scaled


def random_mini_batches(
    X: ArrayLike, Y: ArrayLike, mini_batch_size: int = 64, seed: int = 0
) -> list[tuple[Array, Array]]:
    """Shuffle the examples, and cut them into batches; the last may be smaller.

    Parameters
    ----------
    X : array_like
        Inputs, (m, ...).
    Y : array_like
        Labels, (m, ...).
    mini_batch_size : int, default 64
        Examples in a batch.
    seed : int, default 0
        The same seed gives the same batches.

    Returns
    -------
    list of (X, Y)
        Every example in exactly one batch.

    Raises
    ------
    ValueError
        If X and Y differ in length, or the size is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import course
    >>> [len(x) for x, y in course.random_mini_batches(np.arange(10), np.arange(10), 4)]
    [4, 4, 2]
    """
    X, Y = np.asarray(X), np.asarray(Y)
    m = len(X)
    if len(Y) != m:
        raise ValueError(f"random_mini_batches: X has {m} examples and Y {len(Y)}")
    if mini_batch_size < 1:
        raise ValueError(f"random_mini_batches: mini_batch_size must be at least 1, received {mini_batch_size}")
    # the generator of the course, so that a seed gives the course's own batches
    order = np.random.RandomState(seed).permutation(m)
    shuffled_X, shuffled_Y = X[order], Y[order]
    return [
        (shuffled_X[start : start + mini_batch_size], shuffled_Y[start : start + mini_batch_size])
        for start in range(0, m, mini_batch_size)
    ]


def load_happy_dataset(folder: str | os.PathLike[str] = "datasets") -> Dataset:
    """The course's happy house: 600 + 150 photographs of 64x64x3, label 1 where someone smiles.

    Parameters
    ----------
    folder : path, default "datasets"
        Where the course's ``train_happy.h5`` and ``test_happy.h5`` lie.

    Returns
    -------
    train_set_x_orig, train_set_y_orig, test_set_x_orig, test_set_y_orig, classes
        Images (m, 64, 64, 3) of bytes, labels (1, m), names of the classes; as in the files.

    Raises
    ------
    FileNotFoundError
        If a file is not there; the text says which and where to put it.
    ValueError
        If a file is not what the course gave out.
    ImportError
        If h5py is not installed.
    """
    return _load("load_happy_dataset", pathlib.Path(folder), "train_happy.h5", "test_happy.h5")


def load_signs_dataset(folder: str | os.PathLike[str] = "datasets") -> Dataset:
    """The course's SIGNS: 1080 + 120 photographs of 64x64x3, hands that show 0 to 5.

    Parameters
    ----------
    folder : path, default "datasets"
        Where the course's ``train_signs.h5`` and ``test_signs.h5`` lie.

    Returns
    -------
    train_set_x_orig, train_set_y_orig, test_set_x_orig, test_set_y_orig, classes
        Images (m, 64, 64, 3) of bytes, labels (1, m), names of the classes; as in the files.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError
        As :func:`load_happy_dataset`.
    """
    return _load("load_signs_dataset", pathlib.Path(folder), "train_signs.h5", "test_signs.h5")


def _load(func: str, folder: pathlib.Path, train: str, test: str) -> Dataset:
    missing = [name for name in (train, test) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{func}: {' and '.join(missing)} not found in {folder.absolute()}. They belong to the course and are not "
            f"part of fastconv: download them from its notebook (folder datasets/), put them there, or name their "
            f"folder: {func}(folder)"
        )
    train_x, train_y, _ = _read(func, folder / train, "train")
    test_x, test_y, classes = _read(func, folder / test, "test")
    return train_x, train_y, test_x, test_y, classes


def _read(func: str, path: pathlib.Path, part: str) -> tuple[Array, Array, Array]:
    """(images, labels as a row, classes) of one file."""
    try:
        import h5py
    except ImportError:
        raise ImportError(f"{func}: reading {path} needs h5py: pip install 'fastconv[nn]'") from None
    keys = [f"{part}_set_x", f"{part}_set_y", "list_classes"]
    try:
        with h5py.File(path, "r") as file:
            absent = [key for key in keys if key not in file]
            if absent:
                raise ValueError(f"{func}: {path} must hold {', '.join(keys)}, but lacks {', '.join(absent)}")
            x, y, classes = (np.array(file[key][:]) for key in keys)
    except OSError as error:
        raise ValueError(f"{func}: {path} is no readable HDF5 file: {error}") from None
    if x.ndim != 4 or y.size != len(x):
        raise ValueError(f"{func}: {path} holds images of shape {x.shape} and labels of shape {y.shape}")
    return x, y.reshape(1, -1), classes
