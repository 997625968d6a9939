"""scikit-learn's own data sets, read from the files that it ships, without importing it.

Importing scikit-learn loads SciPy's statistics, which takes nearly as long as torch: every run would start
that much later.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

HELD_OUT: Final = 0.2
"""The share of the digits that no step trains on."""


def load_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the handwritten digits as ``sklearn.datasets.load_digits(return_X_y=True)`` does.

    Returns:
        Pixels of shape (1797, 64), whole numbers from 0 to 16, and labels of shape (1797,), 0 to 9.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    file = _shipped("data", "digits.csv.gz")
    if file is None:
        from sklearn import datasets

        pixels, labels = datasets.load_digits(return_X_y=True)
        return pixels, labels
    table = np.loadtxt(file, delimiter=",")  # opens .gz by itself
    return table[:, :-1], table[:, -1].astype(np.int64)


def load_photo(name: str) -> NDArray[np.uint8]:
    """Return a photograph as ``sklearn.datasets.load_sample_image(name)`` does.

    Args:
        name: "flower.jpg" or "china.jpg".

    Returns:
        Shape (427, 640, 3).

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    file = _shipped("images", name)
    if file is None:
        from sklearn import datasets

        photo: NDArray[np.uint8] = datasets.load_sample_image(name)
        return photo
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image)


def split_places(size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which places to train on and which to hold out, the same ones for every run.

    They are those of ``sklearn.model_selection.train_test_split(test_size=0.2, random_state=0)``.

    Args:
        size: Number of examples.
    """
    drawn = np.random.RandomState(0).permutation(size)
    held_out = math.ceil(HELD_OUT * size)
    return drawn[held_out:], drawn[:held_out]


def _shipped(*parts: str) -> Path | None:
    """Return a file of the installed scikit-learn, None where this version keeps it elsewhere."""
    found = find_spec("sklearn")
    if found is None:
        raise ModuleNotFoundError("scikit-learn is not installed: pip install scikit-learn")
    places = (Path(place, "datasets", *parts) for place in found.submodule_search_locations or ())
    return next((place for place in places if place.is_file()), None)
