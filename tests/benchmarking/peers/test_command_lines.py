"""What the toolkits are asked for has the sizes, the text and the budget of the task."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmarking.peers import fairseq, opennmt
from benchmarking.peers.fairseq import Fairseq, training_arguments
from benchmarking.peers.opennmt import OpenNMT, training_options
from benchmarking.peers.ours import Ours, arguments, config_of
from benchmarking.peers.peer import PeerError, Speed, Task
from benchmarking.peers.processes import Finished
from benchmarking.peers.torch_models import Marian, Plain

PYTHON = Path("python")


class Programs:
    """Stands for the processes of a peer: notes their command lines, and prints what it is told to."""

    def __init__(self, output: str = "") -> None:
        self.output = output
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[object], _threads: int, cwd: Path, **_variables: str) -> Finished:
        cwd.mkdir(parents=True, exist_ok=True)
        self.commands.append([str(word) for word in command])
        return Finished(self.output, 1.5)


def after(words: Sequence[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_fairseq_trains_a_model_of_the_same_sizes(task: Task) -> None:
    words = training_arguments(task)
    assert [
        after(words, f"--{side}-{name}") for side in ("encoder", "decoder") for name in ("layers", "embed-dim")
    ] == [
        "3",
        "34",
        "3",
        "34",
    ]
    assert {after(words, f"--{side}-ffn-embed-dim") for side in ("encoder", "decoder")} == {"23"}
    assert {after(words, f"--{side}-attention-heads") for side in ("encoder", "decoder")} == {"2"}
    assert (after(words, "--dropout"), after(words, "--label-smoothing")) == ("0.1", "0.2")
    assert (after(words, "--max-tokens"), after(words, "--max-update")) == ("13", "5")


def test_fairseq_reads_the_text_once_for_all_sizes(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs()
    monkeypatch.setattr(fairseq, "run", programs)
    (task.work.parent / "binary").mkdir(parents=True)  # as its program does
    Fairseq().prepare(PYTHON, task)
    Fairseq().prepare(PYTHON, dataclasses.replace(task, work=task.work.with_name("base")))
    (command,) = programs.commands
    assert command[:3] == ["python", "-m", "fairseq_cli.preprocess"]
    assert after(command, "--trainpref") == str(task.data / "train")
    dictionary = Path(after(command, "--srcdict")).read_text().splitlines()
    assert dictionary == [f"{number} 1" for number in range(4, 11)]


def test_the_speed_of_fairseq_is_that_of_its_log(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    line = '| INFO | train_inner | {"wps": "50", "wpb": "200"}\n'
    monkeypatch.setattr(fairseq, "run", programs := Programs(line * 5))
    assert Fairseq().measure(PYTHON, task) == Speed(50.0, 1.5)
    assert programs.commands == [["python", "-m", "fairseq_cli.train", *training_arguments(task)]]


def test_opennmt_trains_a_model_of_the_same_sizes(task: Task) -> None:
    options = training_options(task)
    names = ("hidden_size", "word_vec_size", "heads", "transformer_ff", "layers", "batch_size", "train_steps")
    assert [options[name] for name in names] == [34, 34, 2, 23, 3, 13, 5]
    assert (options["src_vocab_size"], options["dropout"], options["label_smoothing"]) == (11, [0.1], 0.2)
    assert options["data"]["corpus_1"]["path_src"] == str(task.data / "train.src")


def test_opennmt_makes_a_model_to_decode_with_once(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opennmt, "run", programs := Programs())
    OpenNMT().prepare(PYTHON, task)
    assert programs.commands == []  # training needs none
    decoding = dataclasses.replace(task, what="decode")
    OpenNMT().prepare(PYTHON, decoding)
    OpenNMT().prepare(PYTHON, decoding)
    (command,) = programs.commands
    options: dict[str, Any] = json.loads(Path(command[-1]).read_text())
    assert (options["train_steps"], options["save_model"]) == (1, str(task.work / "model"))
    assert (task.work / "words.txt").read_text().startswith("4\t1\n5\t1\n")


def test_the_speed_of_opennmt_is_that_of_its_log(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "Step  1/    5; acc: 1.0; ppl: 9.0; sents: 24; bsz: 300/ 200/24; 80/ 50 tok/s;     15 sec;\n"
    monkeypatch.setattr(opennmt, "run", Programs(line * 5))
    OpenNMT().prepare(PYTHON, task)
    assert OpenNMT().measure(PYTHON, task) == Speed(50.0, 1.5)


@pytest.mark.parametrize(
    ("peer", "module", "what", "program"),
    [
        (Plain(), "torch_models", "train", "plain"),
        (Marian(), "torch_models", "train", "marian"),
        (Marian(), "torch_models", "decode", "marian"),
        (Fairseq(), "fairseq", "decode", "fairseq_decoding"),
        (OpenNMT(), "opennmt", "decode", "opennmt_decoding"),
    ],
)
def test_programs_print_their_speed(
    peer: Any, module: str, what: Any, program: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module
    printed = 'noise\n{"speed": 31.0, "tokens_per_sentence": 7}\n'
    monkeypatch.setattr("benchmarking.peers.processes.run", programs := Programs(printed))
    assert peer.measure(PYTHON, dataclasses.replace(task, what=what)) == Speed(31.0, 1.5)
    (command,) = programs.commands
    assert f"benchmarking.peers.programs.{program}" in command
    assert json.loads(command[-1])["sizes"]["d_ff"] == 23
    assert Path(__file__).parents[3].joinpath("scripts/benchmarking/peers/programs", f"{program}.py").is_file()


def test_this_program_is_measured_by_its_own_commands(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Ours(["data.corpus=x"])
    programs = Programs('{"tokens_per_s": 5.0, "sentences_per_cpu_s": 3.0, "output_tokens_per_sentence": 7}')
    monkeypatch.setattr("benchmarking.peers.ours.run", programs)
    assert ours.measure(PYTHON, task) == Speed(5.0, 1.5)
    assert ours.measure(PYTHON, dataclasses.replace(task, what="decode", beam=4, precision="int8")) == Speed(3.0, 1.5)
    train, decode = programs.commands
    assert train[2] == "train" and train[3] == str(config_of("small"))
    assert {"data.corpus=x", "train.precision=fp32", "train.max_tokens=13", "train.tokens_per_update=13"} < {*train}
    assert (after(train, "--updates"), after(train, "--warmup")) == ("3", "2")
    assert decode[2] == "decode"
    options = ("length", "beam", "precision", "sentences", "batch")
    assert [after(decode, f"--{name}") for name in options] == ["7", "4", "int8", "2", "5"]
    assert "--batch" not in arguments(dataclasses.replace(task, what="decode", batch=None), [])
    assert "data.corpus=x" in arguments(task, ["data.corpus=x"])


def test_outputs_of_this_program_are_checked_too(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs('{"sentences_per_cpu_s": 3.0, "output_tokens_per_sentence": 2.5}')
    monkeypatch.setattr("benchmarking.peers.ours.run", programs)
    with pytest.raises(PeerError, match=r"^its outputs have 2\.5 tokens, not 7$"):
        Ours([]).measure(PYTHON, dataclasses.replace(task, what="decode"))
