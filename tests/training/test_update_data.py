"""The pairs of an update: those of the corpus, or split anew, alike on all ranks and after a resumption."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.batching import collate
from transformer.errors import DataError
from transformer.training.data import BatchSampler, RunData, load_data
from transformer.training.distributed import SINGLE_PROCESS
from transformer.training.optimizer import MasterWeights
from transformer.training.train_step import accumulate_in_memory
from transformer.training.trainer import Trainer
from transformer.training.training_state import Progress
from transformer.training.update_data import update_data


def changed(config: Config, name: str, *overrides: str) -> Config:
    """The configuration with other values, in a run directory of this name."""
    path = Path(config.run_dir).with_name(f"{name}.yaml")
    path.write_text(config.to_yaml())
    return load_config(path, [f"run_dir={path.with_suffix('')}", *overrides])


def prepared(config: Config) -> RunData:
    run = Path(config.run_dir)
    run.mkdir()
    return load_data(config.data, run / "tokenizer.model", SINGLE_PROCESS)


def sampler_of(config: Config, data: RunData, context: Any = SINGLE_PROCESS) -> BatchSampler:
    return BatchSampler(data.train, config.train, config.seed, context)


def texts(data: RunData, pairs: Any, indices: Any) -> list[list[str]]:
    sides = (data.tokenizer.source, pairs.src), (data.tokenizer, pairs.tgt)
    return [
        tokenizer.decode([side.ids[side.starts[i] : side.starts[i] + side.lengths[i] - 1] for i in indices])
        for tokenizer, side in sides
    ]


def test_without_sampling_an_update_has_the_pairs_of_the_corpus(tiny_config: Config) -> None:
    data = prepared(tiny_config)
    batches = sampler_of(tiny_config, data)
    update = batches.next(Progress())
    pairs, indices, num_tokens = update_data(data, update, batches, tiny_config, SINGLE_PROCESS)
    assert pairs is data.train
    assert sorted(np.concatenate(indices)) == sorted(np.concatenate(update.batches))
    assert num_tokens == sum(collate(pairs, batch).num_tokens for batch in indices)


@pytest.mark.parametrize(
    "values", [("data.subword_dropout=0.3",), ("data.tokenizer_type=unigram", "data.subword_alpha=0.1")]
)
def test_with_sampling_it_has_the_same_texts_in_batches_within_the_limit(
    tiny_config: Config, values: tuple[str, ...]
) -> None:
    config = changed(tiny_config, "sampled", *values)
    data = prepared(config)
    batches, progress, num_split = sampler_of(config, data), Progress(), 0
    for _ in range(23):
        update = batches.next(progress)
        pairs, indices, num_tokens = update_data(data, update, batches, config, SINGLE_PROCESS)
        found = [collate(pairs, batch) for batch in indices]
        for batch in found:
            assert len(batch.src) == 1 or max(batch.src.numel(), batch.tgt_out.numel()) <= config.train.max_tokens
        assert num_tokens == sum(batch.num_tokens for batch in found)
        expected = texts(data, data.train, np.concatenate(update.batches))
        actual = texts(data, pairs, np.concatenate(indices))
        assert sorted(zip(*actual, strict=True)) == sorted(zip(*expected, strict=True))
        assert pairs.src.lengths.sum() + pairs.tgt.lengths.sum() > sum(
            side.lengths[np.concatenate(update.batches)].sum() for side in (data.train.src, data.train.tgt)
        )
        num_split += len(indices) > len(update.batches)
    assert num_split > 0


def test_a_pair_is_split_anew_at_each_visit_of_an_epoch_alike_on_any_number_of_ranks(tiny_config: Config) -> None:
    corpora = json.dumps([{"path": tiny_config.data.corpus, "weight": 3}])
    config = changed(tiny_config, "repeated", "data.subword_dropout=0.3", f"data.corpora={corpora}")
    data = prepared(config)
    assert data.sampler is not None

    def segmentations(size: int) -> dict[tuple[int, int], set[tuple[int, ...]]]:
        """By update and pair, of an epoch."""
        found, progress = collections.defaultdict[Any, list[Any]](list), [Progress() for _ in range(size)]
        for rank in range(size):
            context: Any = SimpleNamespace(rank=rank, size=size, all_gather=lambda count: [count])
            batches = sampler_of(config, data, context)
            while (update := batches.next(progress[rank])).epoch == 0:
                pairs, _, _ = update_data(data, update, batches, config, context)
                shard = np.concatenate([np.zeros(0, np.int64), *batches.shard(update)])
                ends = pairs.src.starts + pairs.src.lengths
                ids = [tuple(pairs.src.ids[i:j].tolist()) for i, j in zip(pairs.src.starts, ends, strict=True)]
                for pair, one in zip(shard.tolist(), ids, strict=True):
                    found[update.number, pair].append(one)
        return {key: tuple(sorted(ids)) for key, ids in found.items()}

    alone = segmentations(1)
    assert segmentations(3) == alone
    of_pairs = collections.defaultdict[int, list[Any]](list)
    for (_, pair), ids in alone.items():
        of_pairs[pair] += ids
    assert {len(ids) for ids in of_pairs.values()} == {3}
    assert any(len(ids) > 1 for ids in alone.values()), "some pairs are visited twice by one update"
    long = [ids for ids in of_pairs.values() if len(ids[0]) > 20]
    assert sum(len({*ids}) == 3 for ids in long) > 0.9 * len(long) > 0
    first = data.sampler.sample(data.train, np.arange(5), config.seed, 0)
    for pair, end in enumerate(np.cumsum(first.src.lengths)):
        assert tuple(first.src.ids[first.src.starts[pair] : end].tolist()) in of_pairs[pair]


def test_all_ranks_together_have_the_pairs_of_a_single_process(tiny_config: Config) -> None:
    config = changed(tiny_config, "sampled", "data.subword_dropout=0.3")
    data = prepared(config)
    update = sampler_of(config, data).next(Progress())
    alone, _, num_tokens = update_data(data, update, sampler_of(config, data), config, SINGLE_PROCESS)
    expected = {tuple(ids.tolist()) for ids in np.split(alone.src.ids, alone.src.starts[1:])}
    found, counts = set(), list[int]()
    for rank in range(3):
        context: Any = SimpleNamespace(rank=rank, size=3, all_gather=lambda count: [*counts, count])
        pairs, indices, so_far = update_data(data, update, sampler_of(config, data, context), config, context)
        counts.append(sum(collate(pairs, batch).num_tokens for batch in indices))
        assert so_far == sum(counts)
        found |= {tuple(ids.tolist()) for ids in np.split(pairs.src.ids, pairs.src.starts[1:])}
    assert sum(counts) == num_tokens
    assert found == expected


@pytest.mark.parametrize("values", [("data.subword_dropout=0.3",), ("data.subword_dropout=0.3", "train.packed=false")])
def test_all_ranks_together_have_the_gradient_of_a_single_process(tiny_config: Config, values: tuple[str, ...]) -> None:
    """In float64. In float32 the first step of Adam, by the sign of each gradient, shows the rounding of small ones."""
    config = changed(tiny_config, "sampled", "model.dropout=0", *values)
    trainer = Trainer.from_config(config)
    data, model = trainer.data, trainer.weights.master.double()
    weights = MasterWeights(model, torch.float64)

    def gradients(size: int) -> Iterator[dict[str, Any]]:
        """Of each of three updates."""
        contexts: list[Any] = [SimpleNamespace(rank=i, size=size, all_gather=lambda n: [n]) for i in range(size)]
        ranks = [(context, sampler_of(config, data, context), Progress()) for context in contexts]
        for _ in range(3):
            found = [update_data(data, one.next(at), one, config, context) for context, one, at in ranks]
            num_tokens = sum(count for _, _, count in found)
            for pairs, indices, _ in found:
                accumulate_in_memory(weights, pairs, indices, 0.1, num_tokens, lambda: None, packer=trainer.packer)
            summed = {name: parameter.grad for name, parameter in model.named_parameters()}
            weights.zero_grad()
            yield summed

    for expected, found in zip(gradients(1), gradients(3), strict=True):
        assert_close(found, expected, rtol=1e-9, atol=1e-14)
        assert all(gradient.count_nonzero() for gradient in found.values())


def test_a_rank_without_pairs_has_none(tiny_config: Config) -> None:
    config = changed(tiny_config, "sampled", "data.subword_dropout=0.3", "train.tokens_per_update=7")
    data = prepared(config)
    context: Any = SimpleNamespace(rank=1, size=2, all_gather=lambda count: [11, count])
    batches = sampler_of(config, data, context)
    pairs, indices, num_tokens = update_data(data, batches.next(Progress()), batches, config, context)
    assert (len(pairs), indices, num_tokens) == (0, [], 11)


@pytest.mark.parametrize(
    "values",
    [
        ("data.subword_dropout=0.3",),
        ("data.tokenizer_type=unigram", "data.subword_alpha=0.1"),
        ("data.subword_dropout=0.3", 'data.corpora=[{"path": CORPUS, "weight": 2.5, "tag": "<x>"}]', "data.tag=<x>"),
        (
            *("data.subword_dropout=0.3", "train.ema_decay=0.9", "train.freeze=[encoder.layers.0]"),
            *("train.gradient_checkpointing=true", "data.separate_vocabularies=true", "model.tie=decoder"),
        ),
    ],
)
def test_a_resumed_run_with_sampling_equals_one_that_never_stopped(
    tiny_config: Config, values: tuple[str, ...]
) -> None:
    def train(name: str, *stops: int) -> Path:
        for stop in (*stops, 11):
            corpus = json.dumps(tiny_config.data.corpus)
            given = [value.replace("CORPUS", corpus) for value in values]
            trainer = Trainer.from_config(changed(tiny_config, name, *given, "data.max_length=37"))
            trainer.fit(lambda until=stop, now=trainer: "stop" if now.progress.step == until else None)
        return trainer.run / "checkpoints" / "step-00000011"

    whole, parts = train("whole"), train("parts", 2, 5, 6)
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert_close(load_file(parts / file), load_file(whole / file), rtol=0, atol=0)


def test_learned_positions_are_enough_for_sampled_segmentations(tiny_config: Config) -> None:
    values = ("data.subword_dropout=0.9", "data.max_length=29", "model.positional=learned", "model.max_positions=29")
    Trainer.from_config(changed(tiny_config, "learned", *values)).fit()


def test_a_given_tokenizer_must_be_of_the_type_that_is_sampled(tiny_config: Config, tmp_path: Path) -> None:
    data = prepared(tiny_config)
    (tmp_path / "given.model").write_bytes(data.tokenizer.model)
    values = dataclasses.replace(tiny_config.data, tokenizer=f"{tmp_path}/given.model", subword_alpha=0.1)
    with pytest.raises(DataError, match=r"^data\.subword_alpha is for unigram models; the tokenizer is of type bpe$"):
        prepared(changed(dataclasses.replace(tiny_config, data=values), "given"))
