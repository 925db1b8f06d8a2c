"""The programs of model cards and of docs/INTEROP.md run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from interop_models import Make, Save, output_of, programs

from transformer.data.tokenizer import Tokenizer
from transformer.inference.translator import Translator
from transformer.interop.export import export

ROOT = Path(__file__).parents[2]
TEXT = "Two small dogs are playing in the park."
pytestmark = pytest.mark.filterwarnings("ignore")


NEEDS = {"ct2": ["ctranslate2"]}


@pytest.mark.parametrize("to", ["own", "hf", "ct2"])
@pytest.mark.parametrize("is_separate", [False, True])
def test_the_program_of_a_card_translates(
    make: Make,
    save: Save,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    other_tokenizer: Tokenizer,
    to: str,
    is_separate: bool,
) -> None:
    for package in NEEDS.get(to, []):
        pytest.importorskip(package)
    options: dict[str, Any] = {"tie": "decoder", "source": other_tokenizer} if is_separate else {}
    exported = make(search={"beam": 1, "max_length_offset": 90, "max_length": 40}, norm_eps=1e-5, **options)
    monkeypatch.chdir(tmp_path)
    export(exported, to, Path("model"))
    (program,) = programs(Path("model/README.md"))
    program = program.replace('"..."', f'"{TEXT}"').replace("beam_size=4", "beam_size=1")
    found = output_of(program).strip()
    ours = Translator.load(save(exported), precision="fp32").translate([TEXT])[0]
    shown = found.removeprefix("['").removesuffix("']")
    assert shown[:9] == ours[:9], "until the limits of either"


def test_the_programs_of_the_page_run(make: Make, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exported = make(norm_eps=1e-5, search={"max_length": 23})
    (tmp_path / "runs").mkdir()
    save(exported).rename(tmp_path / "runs" / "my")
    export(exported, "hf", Path("my-model"))
    page = programs(ROOT / "docs" / "INTEROP.md")
    with_transformers = [program for program in page if "AutoTokenizer" in program]
    own = [program for program in page if "save_pretrained" in program]
    for program in with_transformers:
        assert output_of(program).startswith("['")
    shutil.rmtree("my-model")
    for program in own:
        output_of(program)
    assert "license: mit" in Path("my-model/README.md").read_text(encoding="utf-8")
