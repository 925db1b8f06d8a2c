"""ViT: Hugging Face's model, its published sizes, patches as a convolution, and what shuffled patches change."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from report import count_parameters
from torch import Tensor, nn

pytest.importorskip("sklearn")
from vit import SIZES, ViT, main, patches_of, shuffled

from transformer import UserError

SHAPE, PATCH_SIZE, NUM_CLASSES = (3, 6, 10), 2, 7


def vit(*, has_positions: bool = True) -> ViT:
    torch.manual_seed(1)
    model = ViT(SHAPE, NUM_CLASSES, PATCH_SIZE, 2, 12, 3, 20, has_positions=has_positions).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def images_of(num_images: int = 5) -> Tensor:
    return torch.randn(num_images, *SHAPE, dtype=torch.double, generator=torch.Generator().manual_seed(2))


def hugging_face_of(model: ViT) -> nn.Module:
    """The same model of the library `transformers`, whose patches are a convolution."""
    transformers = pytest.importorskip("transformers", minversion="5.0")
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    config = transformers.ViTConfig(
        **sizes, image_size=SHAPE[1:], patch_size=PATCH_SIZE, num_labels=NUM_CLASSES, layer_norm_eps=1e-6
    )
    theirs = transformers.ViTForImageClassification(config).double().eval()
    embeddings = "vit.embeddings."
    linears = {"classifier": model.head, "vit.layernorm": model.encoder.norm}
    for number, layer in enumerate(model.encoder.layers):
        attention, feed_forward = layer.self_attention, layer.feed_forward
        names = {"layernorm_before": layer.norm_1, "layernorm_after": layer.norm_2}
        names |= {f"attention.{letter}_proj": getattr(attention, f"w_{letter}") for letter in "qkvo"}
        names |= {"mlp.fc1": feed_forward.w_1, "mlp.fc2": feed_forward.w_2}
        linears |= {f"vit.layers.{number}.{name}": module for name, module in names.items()}
    weights = {f"{name}.weight": module.weight for name, module in linears.items()}
    weights |= {f"{name}.bias": module.bias for name, module in linears.items()}
    weights |= {
        f"{embeddings}cls_token": model.class_token,
        f"{embeddings}position_embeddings": model.positions[None],
        f"{embeddings}patch_embeddings.projection.weight": model.patch.weight.view(12, 3, PATCH_SIZE, PATCH_SIZE),
        f"{embeddings}patch_embeddings.projection.bias": model.patch.bias,
    }
    theirs.load_state_dict(weights)
    return theirs


@torch.no_grad()
def test_logits_are_those_of_hugging_face() -> None:
    model, images = vit(), images_of()
    torch.testing.assert_close(model(images), hugging_face_of(model)(images).logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("size", "count"), [("B/16", 86_567_656), ("B/32", 88_224_232), ("L/16", 304_326_632), ("H/14", 632_045_800)]
)
def test_the_published_sizes_have_their_number_of_parameters(size: str, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(ViT((3, 224, 224), 1000, *SIZES[size])) == count


@torch.no_grad()
def test_projected_patches_are_a_convolution_with_strides() -> None:
    model, images = vit(), images_of()
    kernel = model.patch.weight.view(12, 3, PATCH_SIZE, PATCH_SIZE)
    convolved = F.conv2d(images, kernel, model.patch.bias, stride=PATCH_SIZE)  # (B, D, H / P, W / P)
    torch.testing.assert_close(model.patch(patches_of(images, PATCH_SIZE)), convolved.flatten(2).mT)


def test_patches_are_cut_row_by_row() -> None:
    image = torch.arange(180.0).view(1, *SHAPE)
    assert torch.equal(patches_of(image, PATCH_SIZE)[0, 7], image[0, :, 2:4, 4:6].flatten()), "patch 7 of rows of five"


def test_shuffled_images_have_the_patches_in_their_order() -> None:
    images, order = images_of(), torch.randperm(15, generator=torch.Generator().manual_seed(3))
    found = shuffled(images, PATCH_SIZE, order)
    assert torch.equal(patches_of(found, PATCH_SIZE), patches_of(images, PATCH_SIZE)[:, order])
    assert torch.equal(shuffled(found, PATCH_SIZE, order.argsort()), images)


@torch.no_grad()
def test_without_positions_the_order_of_patches_does_not_matter() -> None:
    images, order = images_of(), torch.randperm(15, generator=torch.Generator().manual_seed(3))
    others = shuffled(images, PATCH_SIZE, order)
    without, with_positions = vit(has_positions=False), vit()
    torch.testing.assert_close(without(images), without(others), rtol=0, atol=1e-10)
    assert ((with_positions(images) - with_positions(others)).abs().amax(dim=1) > 1e-3).all()


@torch.no_grad()
def test_positions_that_are_shuffled_alike_make_shuffled_images_the_same() -> None:
    """So training cannot tell: only the initial positions, which are random, are in another order."""
    model, images, order = vit(), images_of(), torch.randperm(15, generator=torch.Generator().manual_seed(3))
    expected = model(images)
    assert model.positions is not None
    model.positions[1:] = model.positions[1:][order]
    torch.testing.assert_close(model(shuffled(images, PATCH_SIZE, order)), expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_before_training_all_classes_are_equally_likely() -> None:
    torch.manual_seed(1)
    logits = ViT(SHAPE, NUM_CLASSES, PATCH_SIZE, 2, 12, 3, 20)(images_of().float()).softmax(dim=-1)
    assert (logits.amax(dim=-1) - logits.amin(dim=-1) < 0.15).all(), "the head's matrix is 0"
    assert torch.equal(logits[:1].expand_as(logits), logits), "so that only its bias speaks"


def test_the_example_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--updates", "3", "--d-model", "8", "--num-layers", "1", "--num-heads", "2", "--batch", "8"])
    rows = [re.split(r" \| ", line.strip("| ")) for line in capsys.readouterr().out.splitlines()[2:-2]]
    assert [row[0] for row in rows] == [
        "convolutional network",
        "ViT",
        "ViT without positions",
        "support vector machine",
    ]
    svm = rows[-1][-2:]
    assert svm[0] == svm[1] and float(svm[0].rstrip("%")) > 98, (
        "distances of images do not depend on the order of pixels"
    )


def test_patches_that_leave_pixels_over_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"^patches of 3 do not tile images of 8 × 6$"):
        patches_of(torch.zeros(1, 1, 8, 6), 3)
    with pytest.raises(UserError, match="--patch-size 3 does not tile"):
        main(["--patch-size", "3"])
