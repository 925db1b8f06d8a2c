"""torch.func: per-sample gradients, ensembles, calls with other parameters."""

import copy
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from transformer.model.kernels import Dropout


def loss(model: torch.nn.Module, parameters: dict[str, Tensor], src: Tensor, tgt: Tensor) -> Tensor:
    logits = functional_call(model, parameters, (src[None], tgt[None]))[0]
    return F.cross_entropy(logits, tgt)


@pytest.mark.parametrize("length", [7, 60])
def test_per_sample_gradients_equal_those_of_one_sentence_at_a_time(variant, build, ids, length: int) -> None:
    model = build(variant).eval()
    parameters, src, tgt = dict(model.named_parameters()), ids(3, length), ids(3, length)
    gradients = vmap(lambda *sentence: grad(lambda p: loss(model, p, *sentence))(parameters))(src, tgt)
    for i in range(3):
        model.zero_grad()
        F.cross_entropy(model(src[i, None], tgt[i, None])[0], tgt[i]).backward()
        for name, parameter in model.named_parameters():
            assert_close(gradients[name][i], parameter.grad, msg=name)


def test_per_sample_gradients_with_dropout_differ_among_equal_sentences(variant, build, ids) -> None:
    model = build(variant, dropout=0.3)
    parameters, src, tgt = dict(model.named_parameters()), ids(1, 7).expand(3, -1), ids(1, 5).expand(3, -1)
    gradient = grad(lambda *args: loss(model, *args))
    gradients = vmap(gradient, (None, 0, 0), randomness="different")(parameters, src, tgt)
    name = "encoder.layers.0.feed_forward.w_1.weight"
    assert not torch.equal(gradients[name][0], gradients[name][1])
    same = vmap(gradient, (None, 0, 0), randomness="same")(parameters, src, tgt)
    assert_close(same[name][0], same[name][1])
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(gradient, (None, 0, 0))(parameters, src, tgt)


def test_torchs_own_dropout_and_attention_are_computed_for_all_examples_at_once(build, ids) -> None:
    """docs/PORTING.md names the two operations that are not."""
    model = build(dropout=0.3)
    parameters, src, tgt = dict(model.named_parameters()), ids(3, 61), ids(3, 59)

    def missing_rules() -> set[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            gradient = grad(lambda *args: loss(model, *args))
            vmap(gradient, (None, 0, 0), randomness="different")(parameters, src, tgt)
        messages = [str(warning.message) for warning in caught]
        return {name for message in messages for name in re.findall(r"batching rule for aten::(\w+)", message)}

    ours = {"ge_", "_scaled_dot_product_flash_attention_for_cpu"}  # other versions of torch may have rules
    assert {name.removesuffix("_backward") for name in missing_rules()} <= ours
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.p))
    with sdpa_kernel(SDPBackend.MATH):
        assert missing_rules() == set()


def test_the_model_works_as_before_after_a_transform(build, ids) -> None:
    model, src, tgt = build().eval(), ids(2, 1500), ids(2, 5)  # the first of this length, in a transform
    grad(lambda p: loss(model, p, src[0], tgt[0]))(dict(model.named_parameters()))
    logits = copy.deepcopy(model)(src, tgt)
    logits.sum().backward()
    assert_close(logits, model(src, tgt))


def test_an_ensemble_runs_in_one_call(variant, build, ids) -> None:
    models = [build(variant).eval(), build(variant).eval()]
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.mul_(1.5)
    parameters, buffers = stack_module_state(models)
    src, tgt = ids(2, 7), ids(2, 5)
    base = copy.deepcopy(models[0]).to("meta")
    logits = vmap(lambda p, b: functional_call(base, (p, b), (src, tgt)))(parameters, buffers)
    for model, theirs in zip(models, logits, strict=True):
        assert_close(theirs, model(src, tgt), rtol=1e-4, atol=1e-4)  # products of other shapes round otherwise
