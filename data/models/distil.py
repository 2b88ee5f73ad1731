"""Teach a small backbone what a larger one knows: its features become a second target.

Knowledge distillation (Hinton et al., arXiv 1503.02531) on features: beside rebuilding hidden
pixels, the student's tokens have to predict, through one linear layer that is dropped afterwards,
the features that the frozen teacher computes for the same patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from masked_autoencoder import MaskedAutoencoder
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.band_groups import GalileoViT
from geopeft_nb.backbones.base import BackboneRequest
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.backbones.load import load_exactly, read_checkpoint
from geopeft_nb.files import fetch


class GalileoTeacher:
    """Galileo's features of each 8 x 8 patch, from patches of 4 and of 8 pixels.

    Args:
        bands: Bands of the images.
        name: Which Galileo.
    """

    def __init__(self, bands: tuple[str, ...], name: str = "galileo_nano") -> None:
        card = CARDS[name]
        assert card.weights is not None
        path = fetch(card.weights)
        state = read_checkpoint(path)
        self.models = []
        for patch_size in (4, 8):
            sized = replace(card, patch_size=patch_size)
            model = GalileoViT(sized, BackboneRequest(bands, card.img_size)).eval()
            load_exactly(model, model.translate(dict(state)), path)
            self.models.append(model)

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """Return (B, N, 2 D) features of the N = H/8 * W/8 patches of (B, C, H, W) reflectance."""
        fine, coarse = (model(image)[-1] for model in self.models)
        return torch.cat([functional.avg_pool2d(fine, 2), coarse], dim=1).flatten(2).transpose(1, 2)


class TeacherBank:
    """A fixed set of crops and what the teacher says of them, computed once.

    Args:
        draw: Returns a batch of that many crops, (B, C, side, side) reflectance 0-1.
        teacher: Maps a batch to (B, N, F).
        count: Number of crops.
    """

    def __init__(
        self, draw: Callable[[int], Tensor], teacher: Callable[[Tensor], Tensor], count: int
    ) -> None:
        images: list[Tensor] = []
        features: list[Tensor] = []
        while len(images) * 50 < count:
            batch = draw(50)
            images.append((batch * 10_000).round().to(torch.int16))
            features.append(teacher(batch).half())
            if len(images) % 20 == 0:
                print(f"teacher: {len(images) * 50} of {count} crops", flush=True)
        self.images, self.features = torch.cat(images), torch.cat(features)
        std, mean = torch.std_mean(self.features.float().flatten(0, 1), dim=0)
        self.features = ((self.features.float() - mean) / std.clamp(min=1e-6)).half()

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return crops (B, C, side, side) and standardised features (B, N, F), turned alike.

        The teacher is asked once per crop: that its features turn with the image is an assumption.
        """
        chosen = torch.randint(len(self.images), (size,), generator=generator)
        images = self.images[chosen].float() / 10_000
        features = self.features[chosen].float()
        side = round(features.shape[1] ** 0.5)
        grid = features.unflatten(1, (side, side))
        turns, mirror = (
            torch.randint(4, (1,), generator=generator),
            torch.rand(1, generator=generator),
        )
        images = torch.rot90(images, int(turns), dims=(2, 3))
        grid = torch.rot90(grid, int(turns), dims=(1, 2))
        if mirror < 0.5:
            images, grid = images.flip(3), grid.flip(2)
        return images, grid.flatten(1, 2)


class Student(nn.Module):
    """A masked autoencoder whose visible tokens also predict the teacher's features.

    Args:
        autoencoder: What is trained.
        features: Features F of the teacher.
    """

    def __init__(self, autoencoder: MaskedAutoencoder, features: int) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.head = nn.Linear(autoencoder.encoder.width, features)

    def forward(self, image: Tensor, target: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor]:
        """Return the loss on hidden pixels (zero if nothing is hidden) and that on features.

        Args:
            image: (B, C, T, H, W), normalised.
            target: (B, N, F), standardised.
            mask_ratio: Share of patches to hide, 0-1.
        """
        model = self.autoencoder
        seen, restore, grid = model.encode(image, mask_ratio)
        visible = seen.shape[1] - 1
        order = restore.argsort(dim=1)[:, :visible, None]
        shown = target.gather(1, order.expand(-1, -1, target.shape[-1]))
        feature_loss = functional.mse_loss(self.head(seen[:, 1:]), shown)
        if visible == restore.shape[1]:
            return image.new_zeros(()), feature_loss
        hidden = (restore >= visible).float()
        error = (model.decoder(seen, restore, grid) - model.patches(image)).square().mean(dim=-1)
        return (error * hidden).sum() / hidden.sum(), feature_loss
