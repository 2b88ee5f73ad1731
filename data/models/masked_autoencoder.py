"""The masked autoencoder that Prithvi-EO is pretrained with: hide patches, rebuild them.

Method: He et al., arXiv 2111.06377. Decoder and key layout: Prithvi-EO-2.0 (arXiv 2412.02732).
Fine-tuning drops the decoder; it is here for pretraining, and to show what a model has learnt.
Images go without time and location, which the TL models were also given.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from geopeft_nb.backbones import load
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.backbones.prithvi import PrithviViT
from geopeft_nb.backbones.vit import PreNormBlock, pad_to_patches, position_codes, position_table
from geopeft_nb.errors import check_name


class MaskedAutoencoderDecoder(nn.Module):
    """The light decoder that rebuilds masked patches; it is dropped after pretraining.

    Args:
        encoder: The encoder it belongs to (sizes and grid are taken from it).
        channels: Bands C to rebuild.
        width: Features per token of the decoder.
        depth: Number of blocks.
        heads: Attention heads per block.
    """

    decoder_pos_embed: Tensor

    def __init__(
        self, encoder: PrithviViT, channels: int, width: int = 512, depth: int = 8, heads: int = 16
    ) -> None:
        super().__init__()
        self.trained_grid = encoder.trained_grid
        self.decoder_embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_blocks = nn.Sequential(*(PreNormBlock(width, heads) for _ in range(depth)))
        self.decoder_norm = nn.LayerNorm(width, eps=1e-5)
        self.decoder_pred = nn.Linear(width, channels * encoder.patch_size**2)
        table = position_table(width, encoder.frames, encoder.trained_grid)
        self.register_buffer("decoder_pos_embed", table)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, restore: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Rebuild all patches.

        Args:
            tokens: Encoded class token and visible patches, (B, 1 + V, D).
            restore: (B, N) for each patch its place in [visible | masked].
            grid: (T, h, w) of the N patches.

        Returns:
            (B, N, p * p * C) pixel values, normalised; rows, columns, then bands.
        """
        tokens = self.decoder_embed(tokens)
        batch, patches = restore.shape
        masks = self.mask_token.expand(batch, patches + 1 - tokens.shape[1], -1)
        ordered = torch.cat([tokens[:, 1:], masks], dim=1)
        ordered = ordered.gather(1, restore[..., None].expand(-1, -1, tokens.shape[-1]))
        codes = position_codes(self.decoder_pos_embed, self.trained_grid, grid)
        tokens = self.decoder_blocks(torch.cat([tokens[:, :1], ordered + codes], dim=1))
        return self.decoder_pred(self.decoder_norm(tokens))[:, 1:]


class MaskedAutoencoder(nn.Module):
    """Masked autoencoder around a Prithvi-EO encoder; its keys are those of the published files.

    Args:
        encoder: The encoder to pretrain.
        channels: Bands C.
        decoder: (width, depth, heads) of the decoder.
    """

    fixed = ("encoder.pos_embed", "decoder.decoder_pos_embed")

    def __init__(self, encoder: PrithviViT, channels: int, decoder: tuple[int, int, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = MaskedAutoencoderDecoder(encoder, channels, *decoder)

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Name the tensors of a published file, in which version 1 knew no `encoder.`, as ours.

        The decoder's scales of codes of time and location are left out.
        """
        translated = {}
        for key, value in state.items():
            key = key.removeprefix("_timm_module.")
            if not key.startswith(("encoder.", "decoder.")):
                part = "decoder" if key.startswith(("decoder_", "mask_token")) else "encoder"
                key = f"{part}.{key}"
            if key not in self.fixed and not key.endswith("_embed_dec.scale"):
                translated[key] = value
        return translated

    def patches(self, image: Tensor) -> Tensor:
        """Cut (B, C, T, H, W) into (B, T * h * w, p * p * C) pixel values, the border repeated."""
        p = self.encoder.patch_size
        cut = pad_to_patches(image, p).unflatten(4, (-1, p)).unflatten(3, (-1, p))
        return cut.permute(0, 2, 3, 5, 4, 6, 1).flatten(4).flatten(1, 3)

    def image(self, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Join what `patches` cut: (B, T * h * w, p * p * C) to (B, C, T, h * p, w * p)."""
        p = self.encoder.patch_size
        cut = patches.unflatten(2, (p, p, -1)).unflatten(1, grid)  # (B, T, h, w, p, p, C)
        return cut.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)

    def encode(
        self, image: Tensor, mask_ratio: float, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
        """Hide patches and encode the rest; see `forward` for the arguments.

        Returns:
            Class token and visible patches (B, 1 + V, D), the place of each patch in
            [visible | hidden] (B, N), and the grid (T, h, w).
        """
        tokens, grid = self.encoder.embed(pad_to_patches(image, self.encoder.patch_size))
        batch, patches, width = tokens.shape
        visible = max(1, round(patches * (1 - mask_ratio)))
        order = torch.rand(batch, patches, device=image.device, generator=generator).argsort(dim=1)
        seen = tokens.gather(1, order[:, :visible, None].expand(-1, -1, width))
        seen = self.encoder.add_class_token(seen)
        for block in self.encoder.blocks:
            seen = block(seen)
        return self.encoder.norm(seen), order.argsort(dim=1), grid

    def forward(
        self, image: Tensor, mask_ratio: float = 0.75, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Hide patches and measure how well they are rebuilt.

        Args:
            image: (B, C, T, H, W), normalised; any number of frames, any size.
            mask_ratio: Share of patches to hide, 0-1. At least one patch is always seen.
            generator: Source of the random choice of patches.

        Returns:
            Mean squared error over the hidden patches (a scalar, in units of the pretraining
            standard deviation squared; 0 if none is hidden), the rebuilt patches
            (B, N, p * p * C) and the mask (B, N) with 1 where a patch was hidden.
        """
        seen, restore, grid = self.encode(image, mask_ratio, generator)
        rebuilt, mask = self.decoder(seen, restore, grid), (restore >= seen.shape[1] - 1).float()
        error = (rebuilt - self.patches(image)).square().mean(dim=-1)
        return (error * mask).sum() / mask.sum().clamp(min=1), rebuilt, mask

    @torch.no_grad()
    def reconstruct(
        self, image: Tensor, mask_ratio: float = 0.75, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Hide patches and fill the gaps with what the model makes of the rest.

        Args:
            image: (B, C, H, W) or (B, C, T, H, W), normalised; any number of frames, any size.
            mask_ratio: Share of patches to hide, 0-1. At least one patch is always seen.
            generator: Source of the random choice of patches.

        Returns:
            The image (B, C, T, H, W), normalised, with visible patches as they were, and the mask
            (B, T, H, W) with 1 where a pixel was hidden.
        """
        if image.ndim == 4:
            image = image[:, :, None]
        height, columns = image.shape[3:]
        _, rebuilt, mask = self(image, mask_ratio, generator)
        grid = (image.shape[2], *self.encoder.grid(height, columns))
        hidden = mask[..., None].expand_as(rebuilt)
        filled, hidden = (
            self.image(part, grid)[..., :height, :columns] for part in (rebuilt, hidden)
        )
        return torch.where(hidden > 0, filled, image), hidden[:, 0]


def load_autoencoder(name: str, weights: str | Path = "pretrained") -> MaskedAutoencoder:
    """Load a Prithvi-EO model with the decoder that it was pretrained with.

    Args:
        name: A model of the Prithvi family that `gp.list_backbones()` lists.
        weights: ``"pretrained"``, or a path of a checkpoint in the same layout.

    Returns:
        The autoencoder in float32 on the CPU, for the bands of pretraining.

    Raises:
        ValueError: The model has no such decoder, or the checkpoint does not fit or is corrupt.
        FileNotFoundError: The weights file is not there and cannot be downloaded.
    """
    decoders = {key: card.decoder for key, card in CARDS.items() if card.decoder}
    check_name("backbone with a published decoder", name, decoders)
    card = CARDS[name]
    encoder = load.load_backbone(name, weights=None, frames=card.frames)
    assert isinstance(encoder, PrithviViT)  # only this family's cards state a decoder
    with load.seeded(0):
        model = MaskedAutoencoder(encoder, len(card.bands), decoders[name])
    path = load.weights_file(card, weights)
    load.load_exactly(model, model.translate(load.read_checkpoint(path)), path)
    return model
