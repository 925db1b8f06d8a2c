"""The Vision Transformer (Dosovitskiy et al. 2021): an image is a sequence of patches, and an encoder reads it.

    python examples/vit.py

Each patch is projected as a word is embedded; the answer is read from a class token in front. Only the learned
positions could say that an image has two dimensions, and they begin at random. So scikit-learn's digits are classified
as they are and with their patches shuffled, in all images alike: a convolutional network loses the neighbours of each
pixel; the encoder has nothing to lose.
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from loop import fit
from options import demand, read_options, run
from report import count_parameters, print_end, print_table
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor, nn

from transformer import Encoder, FeedForward, MultiHeadAttention, label_smoothed_cross_entropy
from transformer.model.alternatives.layers import PreNormLayer

# Patch size, layers, d_model, heads and d_ff; for images of 3 × 224 × 224.
SIZES = {
    "B/16": (16, 12, 768, 12, 3072),
    "B/32": (32, 12, 768, 12, 3072),
    "L/16": (16, 24, 1024, 16, 4096),
    "H/14": (14, 32, 1280, 16, 5120),
}


def patches_of(images: Tensor, patch_size: int) -> Tensor:
    """Cut images (B, C, H, W) into n = HW / P² patches, row by row: (B, n, C·P²); ValueError if P divides not both."""
    if images.size(2) % patch_size or images.size(3) % patch_size:
        raise ValueError(f"patches of {patch_size} do not tile images of {images.size(2)} × {images.size(3)}")
    return F.unfold(images, patch_size, stride=patch_size).mT


def shuffled(images: Tensor, patch_size: int, order: Tensor) -> Tensor:
    """Patch i of each image is patch order[i] of the given one."""
    columns = patches_of(images, patch_size)[:, order].mT  # (B, C·P², n)
    return F.fold(columns, (images.size(2), images.size(3)), patch_size, stride=patch_size)


class ViT(nn.Module):
    """z_0 = [x_class; x_1 E; ...; x_n E] + E_pos; after N pre-norm layers, the class is linear in LayerNorm(z_N)_0."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        patch_size: int,
        num_layers: int,
        d_model: int,
        num_heads: int,
        d_ff: int,
        *,
        has_positions: bool = True,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.patch_size = patch_size
        self.patch = nn.Linear(channels * patch_size**2, d_model)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        positions = torch.randn(1 + height * width // patch_size**2, d_model) * 0.02
        self.positions = nn.Parameter(positions) if has_positions else None

        def layer() -> PreNormLayer:
            attention = MultiHeadAttention(d_model, num_heads, bias=True)
            return PreNormLayer(attention, FeedForward(d_model, d_ff, activation=F.gelu), dropout=0.0, norm_eps=1e-6)

        self.encoder = Encoder((layer() for _ in range(num_layers)), nn.LayerNorm(d_model, 1e-6))
        self.head = nn.Linear(d_model, num_classes)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, number of classes)."""
        x = self.patch(patches_of(images, self.patch_size))  # (B, n, D)
        x = torch.cat((self.class_token.expand(len(x), -1, -1), x), dim=1)  # (B, 1 + n, D)
        x = self.encoder(x if self.positions is None else x + self.positions, None)
        return self.head(x[:, 0])


def convolutional_network(num_classes: int) -> nn.Module:
    """What ViT does without: weights that see 3 × 3 neighbours, and are the same all over the image."""
    convolutions = [
        nn.Conv2d(1, 24, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(24, 48, 3, padding=1),
        nn.ReLU(),
    ]
    return nn.Sequential(*convolutions, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(48, num_classes))


def main(argv: list[str] | None = None) -> None:
    size = read_options(__doc__, argv, updates=1000, batch=64, patch_size=2, num_layers=3, d_model=48, num_heads=4)
    start = time.perf_counter()
    demand(8 % size.patch_size == 0, f"--patch-size {size.patch_size} does not tile images of 8 × 8")
    pixels, digits = load_digits(return_X_y=True)  # 0 to 16
    order = torch.randperm(len(digits))
    images = torch.tensor(pixels, dtype=torch.float32)[order].view(-1, 1, 8, 8) / 8 - 1
    labels = torch.tensor(digits)[order]
    num_train = len(labels) * 4 // 5
    patch_order = torch.randperm((8 // size.patch_size) ** 2)
    inputs = [images, shuffled(images, size.patch_size, patch_order)]

    def accuracy(model: nn.Module, images: Tensor) -> str:
        """Of test images, in percent, after training."""

        def loss(_: int) -> Tensor:
            batch = torch.randint(num_train, (size.batch,))
            return label_smoothed_cross_entropy(model(images[batch]), labels[batch], 0.1)[0] / size.batch

        fit(model, loss, size.updates, lr=2e-3, warmup_updates=size.updates // 10, weight_decay=0.05)
        with torch.no_grad():
            found = model(images[num_train:]).argmax(dim=-1)
        return f"{(found == labels[num_train:]).double().mean().item():.1%}"

    def vit(has_positions: bool) -> ViT:
        sizes = (size.patch_size, size.num_layers, size.d_model, size.num_heads, 4 * size.d_model)
        return ViT((1, 8, 8), 10, *sizes, has_positions=has_positions)

    models = {
        "convolutional network": lambda: convolutional_network(10),
        "ViT": lambda: vit(True),
        "ViT without positions": lambda: vit(False),
    }
    rows: list[list[object]] = []
    for name, build in models.items():
        scores = [accuracy(build(), images) for images in inputs]
        rows.append([name, f"{count_parameters(build()):,}", *scores])
    scores = []
    for x in (images.flatten(1) for images in inputs):
        machine = SVC(gamma=0.064).fit(x[:num_train], labels[:num_train])
        scores.append(f"{machine.score(x[num_train:], labels[num_train:]):.1%}")
    print_table(["", "parameters", "accuracy", "patches shuffled"], [*rows, ["support vector machine", "", *scores]])
    print_end(time.perf_counter() - start)


if __name__ == "__main__":
    run(main)
