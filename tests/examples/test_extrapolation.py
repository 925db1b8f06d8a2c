"""Positions beyond the lengths of training: the models differ in nothing else, and the same characters are scored."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from extrapolation import KINDS, MAX_DISTANCE, NUM_WINDOWS, SCORED, LanguageModel, losses_by_length, main, windows_of
from report import count_parameters
from torch import Tensor

from transformer import UserError

V, N, D, H, CONTEXT = 31, 3, 22, 11, 23


def make_model(kind: str) -> LanguageModel:
    torch.manual_seed(3)
    return LanguageModel(kind, V, N, D, H, CONTEXT).double().eval()


def ids_of(*shape: int) -> Tensor:
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_kinds_of_positions_are_the_only_difference_and_each_has_an_effect() -> None:
    models = {kind: make_model(kind) for kind in KINDS}
    with_parameters = {"learned": CONTEXT * D, "shaw": N * 2 * (2 * MAX_DISTANCE + 1) * (D // H), "t5": 32 * H}
    counts = {kind: count_parameters(model) - count_parameters(models["none"]) for kind, model in models.items()}
    assert counts == {kind: with_parameters.get(kind, 0) for kind in KINDS}
    shared = models["none"].state_dict()
    logits = []
    for model in models.values():
        missing, _ = model.load_state_dict(shared, strict=False)
        assert not set(missing) & set(shared)
        logits.append(model(ids_of(1, CONTEXT))[0, -1])
    for number, one in enumerate(logits):
        assert all((one - other).abs().max() > 1e-3 for other in logits[:number])


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_no_logit_depends_on_later_characters(kind: str) -> None:
    model, ids = make_model(kind), ids_of(2, CONTEXT)
    changed = ids.clone()
    changed[:, 7:] = (ids[:, 7:] + 1) % V
    before, after = model(ids), model(changed)
    torch.testing.assert_close(after[:, :7], before[:, :7])
    assert (after[:, 7:] - before[:, 7:]).abs().amax(-1).min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("scored", [0, 1, 5])
def test_the_loss_is_that_of_the_last_characters_each_given_those_before_it(scored: int) -> None:
    model, ids = make_model("rotary"), ids_of(2, 14)
    places = range(14 - scored if scored else 1, 14)
    log_p = [model(row[None, :place])[0, -1].log_softmax(-1)[row[place]] for row in ids for place in places]
    assert model.loss(ids, scored).item() == pytest.approx(-torch.stack(log_p).mean().item())


def test_windows_are_of_the_text_from_its_beginning_to_its_end() -> None:
    windows = windows_of(torch.arange(1009), 29, 13)
    assert windows.shape == (13, 30)
    assert windows[0, 0] == 0 and windows[-1, -1] == 1008
    assert (windows.diff(dim=1) == 1).all() and (windows[:, 0].diff() > 0).all()


def test_the_same_characters_are_scored_at_every_length() -> None:
    class Listener(LanguageModel):
        """Is sure of the next number, and remembers what it has read."""

        def forward(self, ids: Tensor) -> Tensor:
            read.append(ids)
            return 1e3 * torch.nn.functional.one_hot((ids + 1) % 307, 307).float()

    read: list[Tensor] = []
    windows = windows_of(torch.arange(307), 4 * CONTEXT, 8)
    assert losses_by_length(Listener("none", 307, 1, D, H, CONTEXT), windows, [CONTEXT, 4 * CONTEXT]) == ["0.000"] * 2
    short, long = torch.cat(read[:4]), torch.cat(read[4:])
    assert short.shape == (8, CONTEXT) and long.shape == (8, 4 * CONTEXT)
    assert torch.equal(short, long[:, -CONTEXT:])
    assert CONTEXT >= SCORED


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_only_learned_positions_end_with_the_lengths_of_training(kind: str) -> None:
    cells = losses_by_length(make_model(kind), ids_of(4, 4 * CONTEXT + 1), [CONTEXT, CONTEXT + 1, 4 * CONTEXT])
    assert ["–" in cell for cell in cells] == [False, *[kind == "learned"] * 2]
    assert float(cells[0]) == pytest.approx(math.log(V), rel=0.5)


def test_the_kept_result_says_what_the_pages_say() -> None:
    """Q104 of docs/CONCEPTS.md and the section of docs/EXAMPLES.md."""
    lines = (Path(__file__).parents[2] / "docs/results/examples/extrapolation.md").read_text("utf-8").splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")][2:]
    losses = {kind: row[1:] for kind, row in zip(KINDS, cells, strict=True)}
    assert losses.pop("learned")[1:] == ["–"] * 3
    lost = {kind: [float(cell) - float(row[0]) for cell in row[1:]] for kind, row in losses.items()}
    assert min(min(row) for row in lost.values()) > 0, "none gains"
    by_loss = sorted(lost, key=lambda kind: lost[kind][-1])
    assert by_loss[:2] == ["alibi", "shaw"] and {*by_loss[-2:]} == {"sinusoidal", "rotary"}
    assert lost["alibi"][-1] < 0.1 and min(lost["sinusoidal"][0], lost["rotary"][0]) > 0.5


def test_windows_shorter_than_what_is_scored_are_an_error() -> None:
    with pytest.raises(UserError, match=rf"--context {SCORED - 1} is less than the {SCORED} characters"):
        main(["--context", str(SCORED - 1)])


def test_a_tiny_run_prints_a_row_for_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--updates", "2", "--batch", "3", "--context", "17", "--num-layers", "1", "--d-model", "8"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[0] == ["positions", "17 read", "34 read", "68 read", "136 read"]
    assert [row[0] for row in rows[2:]] == [*KINDS.values()]
    assert [row[0] for row in rows[2:] if "–" in row] == [KINDS["learned"]]
    assert NUM_WINDOWS % 4 == 0  # so that the mean of four means is that of all
