"""The data of lifecycles on weighted, tagged, filtered and deduplicated corpora."""

from __future__ import annotations

from pathlib import Path

CORPORA = """
  corpora:
  - {{path: "{root}/corpus/train.{{lang}}", weight: 0.3}}
  - {{src: "{root}/corpus/bt.en", tgt: "{root}/corpus/bt.de", weight: 2.5, tag: <bt>}}
  hold_out: [validation]
  validation_size: 17
  filters: [copies, numbers]
  deduplicate: true
"""


def several_corpora(root: Path) -> None:
    """Change a configuration to two corpora, of which one is small, with held-out validation pairs."""
    for lang in ("en", "de"):
        lines = (root / "corpus" / f"train.{lang}").read_text().splitlines(keepends=True)
        (root / "corpus" / f"bt.{lang}").write_text("".join([*lines[5:46], *lines[5:9], "copied\n"]))
    path = root / "config.yaml"
    before, _, after = path.read_text().partition("data: {")
    keys, _, rest = after.partition("}\ntrain")
    joined = "\n".join(f"  {key.strip()}" for key in keys.split(", "))
    text = f"{before}data:\n{joined}{CORPORA.format(root=root)}train{rest}"
    path.write_text(text.replace("tokens_per_update: 307", "tokens_per_update: 997"))
