from __future__ import annotations

import torch
from torch import nn

from lsviz.training.watching import watched_modules, watched_parameters


def test_names_see_through_wrappers() -> None:
    model = nn.DataParallel(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU())))
    assert list(watched_modules(model)) == ["", "0", "1", "1.0"]
    assert list(watched_parameters(model)) == ["0.weight", "0.bias"]
    inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    partly = nn.Sequential(torch.compile(inner, backend="eager"), nn.Linear(2, 1))
    assert list(watched_modules(partly)) == ["", "0", "1"]
    assert list(watched_parameters(partly)) == ["0.0.weight", "0.0.bias", "1.weight", "1.bias"]
    partly[1].compile(backend="eager")  # its hooks would be compiled with it
    assert list(watched_modules(partly)) == ["", "0"]
