"""The data are scikit-learn's, and a run does not wait for scikit-learn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets as theirs
from sklearn.model_selection import train_test_split

from lsviz.training import datasets
from tests.conftest import clean_environment

FILE_OR_IMPORT = pytest.mark.parametrize("shipped", [True, False], ids=["file", "import"])


@pytest.fixture
def kept_elsewhere(shipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scikit-learn whose files lie somewhere else, where asked for."""
    if not shipped:
        monkeypatch.setattr(datasets, "_shipped", lambda *parts: None)


@FILE_OR_IMPORT
@pytest.mark.usefixtures("kept_elsewhere")
def test_the_digits_are_scikit_learns() -> None:
    expected_pixels, expected_labels = theirs.load_digits(return_X_y=True)
    pixels, labels = datasets.load_digits()
    np.testing.assert_array_equal(pixels, expected_pixels, strict=True)
    np.testing.assert_array_equal(labels, expected_labels, strict=True)


@FILE_OR_IMPORT
@pytest.mark.usefixtures("kept_elsewhere")
@pytest.mark.parametrize("name", ["flower.jpg", "china.jpg"])
def test_a_photo_is_scikit_learns(name: str) -> None:
    np.testing.assert_array_equal(datasets.load_photo(name), theirs.load_sample_image(name), strict=True)


@pytest.mark.parametrize("size", [2, 9, 10, 1797])
def test_the_split_is_scikit_learns(size: int) -> None:
    train, test = datasets.split_places(size)
    expected_train, expected_test = train_test_split(np.arange(size), test_size=0.2, random_state=0)
    np.testing.assert_array_equal(train, expected_train)
    np.testing.assert_array_equal(test, expected_test)


def test_without_scikit_learn_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        datasets.load_digits()


@pytest.mark.parametrize("task", ["sigmoid-mlp", "dcgan", "image-fit"])
def test_no_run_imports_scikit_learn(task: str) -> None:
    code = (
        "import sys; from lsviz.training.tasks.base import build_task;"
        f"task = build_task({task!r}); next(task.batches(0)); task.evaluate(task.build_model(), 'cpu');"
        "print([name for name in ('sklearn', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
