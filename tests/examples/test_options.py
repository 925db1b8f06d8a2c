"""The options of the examples."""

from __future__ import annotations

import pytest
import torch
from options import read_options


def test_options_have_their_defaults_and_those_that_are_given() -> None:
    options = read_options("Text.", ["--d-model", "7", "--seed", "5"], d_model=3, updates=11)
    assert vars(options) == {"d_model": 7, "updates": 11, "seed": 5}


def test_the_seed_decides_what_torch_draws() -> None:
    drawn = []
    for argv in (["--seed", "3"], ["--seed", "3"], ["--seed", "4"], []):
        read_options(None, argv)
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1] != drawn[2] != drawn[3]


def test_help_has_the_description_and_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_options("A text\n\n    in two parts.", ["--help"], num_layers=13)
    out = capsys.readouterr().out
    assert "A text\n\n    in two parts." in out
    assert "--num-layers N" in out and "13" in out and "--seed N" in out
