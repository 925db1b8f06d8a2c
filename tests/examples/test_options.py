"""The options of the examples."""

from __future__ import annotations

import pytest
import torch
from options import at_least, demand, read_options, run

from transformer import UserError


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


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--batch", "0"], "argument --batch: 0 is less than 1"),
        (["--batch", "-3"], "argument --batch: -3 is less than 1"),
        (["--updates", "-1"], "argument --updates: -1 is less than 0"),
        (["--seed", "-1"], "argument --seed: -1 is less than 0"),
        (["--batch", "7.5"], "argument --batch: invalid whole_number value: '7.5'"),
        (["--d-model", "15"], "--d-model 15 is not a multiple of --num-heads 4"),
        (["--num-heads", "3"], "--d-model 16 is not a multiple of --num-heads 3"),
    ],
)
def test_a_number_that_would_train_on_nothing_is_refused(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as found:
        read_options(None, argv, batch=7, updates=11, d_model=16, num_heads=4)
    assert found.value.code == 2 and message in capsys.readouterr().err


def test_no_update_and_seed_0_are_options() -> None:
    assert vars(read_options(None, ["--updates", "0", "--seed", "0"], updates=11)) == {"updates": 0, "seed": 0}
    assert at_least(3)("3") == 3


def test_what_options_must_fulfil_together_is_demanded() -> None:
    demand(True, "not raised")
    with pytest.raises(UserError, match=r"^more than there are$"):
        demand(False, "more than there are")


@pytest.mark.parametrize("error", [UserError("no such thing"), FileNotFoundError(2, "no such thing")])
def test_an_error_of_the_user_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as found:
        run(main)
    assert found.value.code == 2 and capsys.readouterr().err == f"error: {error}\n"


def test_an_error_of_the_program_has_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: print(1 // 0))
