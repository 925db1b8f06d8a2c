"""What efficient attention costs: counted by hand, and where it crosses full attention."""

from __future__ import annotations

import json
from pathlib import Path

import attention_cost
import pytest
import torch
from attention_cost import BUDGET, FULL, WRITTEN_OUT, Segments, crossover, layers, measure
from transformer_xl import RelativeAttention

from transformer import DotProductAttention, UserError, causal_mask

D, H = 8, 2


def counts(length: int) -> dict[str, int]:
    return {point["of"]: point["multiply_adds"] for point in measure([length], D, H, 0.0)}


def test_multiply_adds_are_those_counted_by_hand() -> None:
    n, projections = 512, 4 * 512 * D * D
    found = counts(n)
    assert found[FULL] == found[WRITTEN_OUT] == projections + 2 * n * n * D
    assert found["Linformer"] == projections + 2 * n * BUDGET * D + 2 * n * BUDGET * D
    # Per head: features, sums to and from them with a column that sums the weights, and pairs in chunks of 64.
    d_k, m = D // H, BUDGET
    assert found["Performer"] == projections + H * n * (2 * m * d_k + 2 * m * (d_k + 1) + 64 * (m + d_k + 1))


def test_all_but_full_attention_cost_twice_as_much_for_twice_the_length() -> None:
    once, twice, four_times = counts(512), counts(1024), counts(2048)
    for name in once:
        ratio = (four_times[name] - twice[name]) / (twice[name] - once[name])
        if name in (FULL, WRITTEN_OUT):
            assert ratio > 3.5
        else:
            assert ratio == pytest.approx(4 if name == "Reformer" else 2, rel=0.5), name


@pytest.mark.parametrize("length", [3, 64, 65, 200])
def test_segments_are_attention_to_the_own_segment_and_the_one_before(length: int) -> None:
    torch.manual_seed(1)
    relative = RelativeAttention(H, D // H, D)
    torch.nn.init.normal_(relative.u)
    torch.nn.init.normal_(relative.v)
    layer, x = Segments(D, H, attention=relative), torch.randn(2, length, D)
    segment = torch.arange(length) // (BUDGET // 2)
    mask = causal_mask(length) & (segment[:, None] - segment <= 1)
    whole = super(Segments, layer).forward(x, mask=mask)
    torch.testing.assert_close(layer(x), whole)


def test_every_kind_gives_an_output_of_the_shape_of_its_input() -> None:
    for name, layer in layers(129, D, H, DotProductAttention()).items():
        assert layer(torch.randn(1, 129, D)).shape == (1, 129, D), name


def test_curves_cross_where_lines_between_their_points_do() -> None:
    lengths = [1, 10, 100]
    quadratic, linear = [float(n * n) for n in lengths], [20.0 * n for n in lengths]
    assert crossover(lengths, linear, quadratic) == pytest.approx(20)
    assert crossover(lengths, quadratic, linear) is None
    assert crossover(lengths, [0.5, 5.0, 50.0], quadratic) == 1
    # The last of several crossings counts.
    assert crossover(lengths, [0.1, 1000.0, 1000.0], quadratic) == pytest.approx(10 ** (1.5))


def test_a_small_run_prints_its_table_and_writes_its_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cost.json"
    attention_cost.main(["--lengths", "256", "128", "256", "--d-model", "8", "--seconds", "0", "--json", str(file)])
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:-2]]
    report = json.loads(file.read_text(encoding="utf-8"))
    names = [point["of"] for point in report["points"]][: len(rows)]
    assert lines[0].count("ms, n =") == 2 and "| ms, n = 128 | ms, n = 256 |" in lines[0], "sorted, each once"
    assert [row[0] for row in rows] == names and len(report["points"]) == 2 * len(rows) == 16
    assert report["d_model"] == 8 and report["threads"] == 1
    assert [row[1] for row in rows] == [f"{point['ms']:,.1f}" for point in report["points"][: len(rows)]]
    assert rows[0][4:] == ["–", rows[0][5], "–"]


def test_sizes_that_no_attention_has_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        attention_cost.main(["--lengths", "127"])
    assert "127 is less than 128" in capsys.readouterr().err
    with pytest.raises(UserError, match="--d-model 9 is not a multiple of 2"):
        attention_cost.main(["--d-model", "9"])
