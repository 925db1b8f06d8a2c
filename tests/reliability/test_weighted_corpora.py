"""A run on weighted, tagged and filtered corpora that is killed again and again ends as one that never stopped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from run_lifecycle import LAST_STEP, Harness, Kill

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

KILLS = [
    Kill("building the cache", 5, "KILL"),
    Kill("building the cache", 29, "KILL"),
    Kill("saving a checkpoint", 19, "TERM"),
    Kill("writing metrics", 5, "INT"),
    Kill("inference", 1, "KILL"),
    Kill("saving a checkpoint", 30, "KILL"),
    Kill("final save", 13, "KILL"),
]
CORPORA = """
  corpora:
  - {{path: "{root}/corpus/train.{{lang}}", weight: 0.3}}
  - {{src: "{root}/corpus/bt.en", tgt: "{root}/corpus/bt.de", weight: 2.5, tag: <bt>}}
  hold_out: [validation]
  validation_size: 17
  filters: [copies, numbers]
  deduplicate: true
"""


class WeightedHarness(Harness):
    """Trains on two corpora, of which one is small, with held-out validation pairs."""

    def _set_up_new(self, root: Path, max_steps: int = LAST_STEP) -> None:
        super()._set_up_new(root, max_steps)
        for lang in ("en", "de"):
            lines = (root / "corpus" / f"train.{lang}").read_text().splitlines(keepends=True)
            (root / "corpus" / f"bt.{lang}").write_text("".join([*lines[5:46], *lines[5:9], "copied\n"]))
        config = (root / "config.yaml").read_text()
        before, _, after = config.partition("data: {")
        keys, _, rest = after.partition("}\ntrain")
        lines = "\n".join(f"  {key.strip()}" for key in keys.split(", "))
        text = f"{before}data:\n{lines}{CORPORA.format(root=root)}train{rest}"
        (root / "config.yaml").write_text(text.replace("tokens_per_update: 307", "tokens_per_update: 997"))


@pytest.mark.slow
def test_a_killed_run_on_weighted_corpora_ends_as_if_undisturbed(tmp_path: Path) -> None:
    harness = WeightedHarness(tmp_path, is_forked=True)
    harness.prepare(["train"])
    done, lifecycle = harness.run("train", 1, KILLS)
    assert lifecycle.faults == []
    assert len(done) >= len(KILLS) - 1
