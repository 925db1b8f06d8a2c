"""Knowledge distillation (Hinton et al. 2015; of sequences: Kim & Rush 2016), and the KL divergence behind it.

The idea: the distribution of a large model teaches a small one more than one-hot targets do. Word-level distillation
adds T² KL(teacher ‖ student), both softened by a temperature; sequence-level distillation replaces the references by
the teacher's own translations, found by beam search, which are more regular.

Shown: students of one size on the built-in corpus, trained on references and by either distillation; and on a bandit,
that gradient ascent on reward - β KL(π ‖ π_ref) (as of InstructGPT, 2022) arrives at π* ∝ π_ref exp(r / β).

    python examples/distillation.py
"""

from __future__ import annotations

import math
import operator
import random
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from captions import Vocabulary, padded, words
from loop import fit
from options import demand, read_options, run
from report import print_end, print_table
from torch import Tensor, nn

from transformer import BOS_ID, EOS_ID, PAD_ID, DecoderState, Transformer, beam_search
from transformer.data.builtin import builtin_pairs

Pair = tuple[list[int], list[int]]  # ids of source and target
Taught = tuple[list[Tensor], float]  # the teacher's logits for each pair, and the temperature


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Σ p log(p / q) of log-probabilities (..., V): (...). Where p is 0, so is the term."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(dim=-1)


def word_distillation(student: Tensor, teacher: Tensor, target: Tensor, weight: float, temperature: float) -> Tensor:
    """(1 - α) NLL + α T² KL(teacher ‖ student): logits (N, V), temperature T; T² keeps the size of the gradient."""
    soft = kl_divergence((teacher / temperature).log_softmax(dim=-1), (student / temperature).log_softmax(dim=-1))
    return (1 - weight) * F.cross_entropy(student, target) + weight * temperature**2 * soft.mean()


def best_policy(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """log π* of the closed form π* ∝ π_ref exp(r / β): log-probabilities and rewards (A,) to (A,)."""
    return (reference + rewards / beta).log_softmax(dim=-1)


def ascended_policy(reference: Tensor, rewards: Tensor, beta: float, updates: int) -> Tensor:
    """log π after gradient ascent from π_ref on E_π[r] - β KL(π ‖ π_ref): (A,)."""
    policy = nn.Embedding.from_pretrained(reference[None].clone(), freeze=False)

    def loss(_: int) -> Tensor:
        log_p = policy.weight[0].log_softmax(dim=-1)
        return beta * kl_divergence(log_p, reference) - (log_p.exp() * rewards).sum()

    fit(policy, loss, updates, lr=0.1, max_norm=math.inf)
    return policy.weight[0].detach().log_softmax(dim=-1)


def batch_logits(model: Transformer, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Teacher forcing: logits (N, V) and targets (N,) of the words of a batch (B, S), (B, T), with their </s>."""
    hidden, _ = model.decode(target[:, :-1], model.encode(source))
    is_word = target[:, 1:] != PAD_ID
    return model.logits(hidden[is_word]), target[:, 1:][is_word]


def batch(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Sources (B, S) with </s>, targets (B, T) with <s> and </s>."""
    return padded([[*s, EOS_ID] for s, _ in pairs]), padded([[BOS_ID, *t, EOS_ID] for _, t in pairs])


@torch.no_grad()
def soft_targets(teacher: Transformer, pairs: Sequence[Pair]) -> list[Tensor]:
    """The teacher's logits for each pair, (T, V); once for all updates and students, as dropout is off."""
    return [batch_logits(teacher, *batch([pair]))[0] for pair in pairs]


def train(model: Transformer, pairs: Sequence[Pair], updates: int, size: int, taught: Taught | None = None) -> None:
    """Train on batches of `size` pairs; with a teacher by half the NLL, half its KL."""
    draw = random.Random(updates)

    def loss(_: int) -> Tensor:
        chosen = draw.sample(range(len(pairs)), size)
        logits, target = batch_logits(model, *batch([pairs[i] for i in chosen]))
        if taught is None:
            return F.cross_entropy(logits, target)
        return word_distillation(logits, torch.cat([taught[0][i] for i in chosen]), target, 0.5, taught[1])

    fit(model, loss, updates, lr=0.3 / model.embedding.weight.size(1), warmup_updates=updates // 10)


@torch.inference_mode()
def translate(model: Transformer, sources: Sequence[list[int]], beam: int) -> list[list[int]]:
    """Ids of the best translation of each source, without </s>."""

    def decode(tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        hidden, state = model.decode(tokens[:, None], state)
        return model.logits(hidden[:, 0]), state

    ids, limits = padded([[*source, EOS_ID] for source in sources]), [40] * len(sources)  # (B, S)
    found = beam_search(decode, model.encode(ids), limits, bos_id=BOS_ID, eos_id=EOS_ID, beam=beam)
    return [[i for i in best.ids if i != EOS_ID] for best, *_ in found]


def scores(name: str, model: Transformer, pairs: Sequence[Pair]) -> tuple[str, ...]:
    """NLL of the references in nats per word; how many translations equal them, by greedy and by beam search."""
    with torch.inference_mode():
        nll = F.cross_entropy(*batch_logits(model, *batch(pairs))).item()
    sources, references = zip(*pairs, strict=True)
    hits = [sum(map(operator.eq, translate(model, sources, beam), references)) for beam in (1, 4)]
    return name, f"{nll:.3f}", *(f"{hit / len(pairs):.3f}" for hit in hits)


def main(argv: list[str] | None = None) -> None:
    sizes, start = {"pairs": 20000, "student_pairs": 2000, "test_pairs": 200}, time.perf_counter()
    args = read_options(__doc__, argv, updates=800, batch_size=64, **sizes)
    demand(args.batch_size <= min(args.pairs, args.student_pairs), f"--batch-size {args.batch_size} is more than pairs")
    corpora = (builtin_pairs("train", args.pairs), builtin_pairs("test", args.test_pairs))
    texts = [[(words(source), words(target)) for source, target in corpus] for corpus in corpora]
    vocabulary = Vocabulary(sentence for pair in texts[0] for sentence in pair)
    pairs, test = ([(vocabulary.encode(s), vocabulary.encode(t)) for s, t in part] for part in texts)
    teacher = Transformer(len(vocabulary), d_model=96, num_layers=2, num_heads=4, d_ff=384)
    train(teacher, pairs, args.updates, args.batch_size)
    few, sources = pairs[: args.student_pairs], [source for source, _ in pairs[: args.student_pairs]]
    taught = list(zip(sources, translate(teacher, sources, beam=4), strict=True))
    soft, rows = soft_targets(teacher, few), [scores("teacher", teacher, test)]
    word_level = {f"word-level, T = {t}": (soft, t) for t in (1, 2, 4)}
    for name in ("references", *word_level, "sequence-level"):
        torch.manual_seed(args.seed)
        student = Transformer(len(vocabulary), d_model=48, num_layers=1, num_heads=4, d_ff=192)
        train(student, taught if name == "sequence-level" else few, args.updates, args.batch_size, word_level.get(name))
        rows.append(scores(f"student, {name}", student, test))
    print_table(("model", "NLL (nats per word)", "exact, greedy", "exact, beam 4"), rows)
    reference, rewards = torch.tensor([0.4, 0.3, 0.2, 0.09, 0.01]).log(), torch.tensor([0.0, 1.0, 0.5, 2.0, 3.0])
    policies = []
    for beta in (0.1, 1.0, 10.0):
        best, climbed = best_policy(reference, rewards, beta), ascended_policy(reference, rewards, beta, 1000)
        reward, gap = (best.exp() * rewards).sum(), (climbed.exp() - best.exp()).abs().max()
        policies.append((f"{beta:g}", f"{reward:.3f}", f"{kl_divergence(best, reference):.3f}", f"{gap:.4f}"))
    print_table(("β", "reward of π*", "KL(π* ‖ π_ref)", "largest gap of gradient ascent"), policies)
    print_end(time.perf_counter() - start, teacher, student)


if __name__ == "__main__":
    run(main)
