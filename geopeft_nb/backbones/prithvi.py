"""The Prithvi-EO vision transformer and its masked autoencoder, in one file to read in a sitting.

Written from the tensor layout of the published checkpoints and from Prithvi-EO-2.0
(arXiv 2412.02732): a ViT over patches in space and time, pre-norm blocks, exact GELU, fixed
sin-cos position codes and layer norms with epsilon 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geopeft_nb.backbones.base import Backbone, choose_layers
from geopeft_nb.backbones.vit import make_block, pad_to_patches, resize_grid, sincos_grid


class PatchEmbed(nn.Module):
    """Cut an image series into patches and project each to a token."""

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        kernel = (1, patch_size, patch_size)
        self.proj = nn.Conv3d(channels, width, kernel_size=kernel, stride=kernel)

    def forward(self, image: Tensor) -> Tensor:
        """Embed (B, C, T, H, W) to (B, T * H/p * W/p, D): frames, then rows, then columns."""
        return self.proj(image).flatten(2).transpose(1, 2)


class PrithviViT(Backbone):
    """Prithvi-EO encoder; as a `Backbone` it returns one map per chosen block.

    Args:
        channels: Input bands C.
        width: Features per token D, a multiple of 16.
        depth: Number of blocks.
        heads: Attention heads per block.
        patch_size: Patch side p in pixels.
        img_size: Image side in pixels whose grid the position codes are made for; other sizes use
            resized codes.
        frames: Time steps T that the position codes are made for.
        layers: Blocks whose output is returned; None means the last one.
    """

    pos_embed: Tensor

    def __init__(
        self,
        channels: int = 6,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        patch_size: int = 16,
        img_size: int = 224,
        frames: int = 1,
        layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.width, self.patch_size, self.frames = width, patch_size, frames
        self.layers = choose_layers(layers, depth)
        self.channels = (width * frames,) * len(self.layers)
        self.trained_grid = img_size // patch_size
        self.patch_embed = PatchEmbed(channels, width, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(make_block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-5)
        codes = sincos_grid(width, frames, self.trained_grid, self.trained_grid)
        # Row 0 belongs to the class token and is zero. Published files store this buffer too.
        self.register_buffer(
            "pos_embed", torch.cat([torch.zeros(1, 1, width), codes.reshape(1, -1, width)], dim=1)
        )
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def position_codes(self, frames: int, height: int, columns: int) -> Tensor:
        """Return the position codes of a grid of patches.

        Args:
            frames: Time steps T.
            height: Rows h.
            columns: Columns w.

        Returns:
            (1, T * h * w, D), without the class token's row.
        """
        side = self.trained_grid
        if frames == self.frames:
            codes = self.pos_embed[0, 1:].reshape(frames, side, side, self.width)
        else:
            codes = sincos_grid(self.width, frames, side, side).to(self.pos_embed)
        return resize_grid(codes, height, columns).reshape(1, -1, self.width)

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Turn an image series into patch tokens with position codes.

        Args:
            image: (B, C, T, H, W), normalised; H and W that patches do not fill are padded.

        Returns:
            Tokens (B, T * h * w, D), without class token, and the grid (T, h, w).
        """
        image = pad_to_patches(image, self.patch_size)
        frames, height, columns = image.shape[2:]
        grid = (frames, height // self.patch_size, columns // self.patch_size)
        return self.patch_embed(image) + self.position_codes(*grid), grid

    def add_class_token(self, tokens: Tensor) -> Tensor:
        """Put the class token in front: (B, N, D) -> (B, 1 + N, D)."""
        cls = self.cls_token + self.pos_embed[:, :1]
        return torch.cat([cls.expand(len(tokens), -1, -1), tokens], dim=1)

    def tokens(self, image: Tensor) -> tuple[list[Tensor], tuple[int, int, int]]:
        """Run the blocks and keep the outputs of the chosen ones.

        Args:
            image: (B, C, T, H, W), normalised.

        Returns:
            One (B, 1 + T * h * w, D) tensor per chosen block and the grid (T, h, w). Only the
            output of the network's last block passes the final layer norm.
        """
        tokens, grid = self.embed(image)
        tokens = self.add_class_token(tokens)
        kept = []
        for index, block in enumerate(self.blocks[: self.layers[-1] + 1]):
            tokens = block(tokens)
            if index in self.layers:
                last = index == len(self.blocks) - 1
                kept.append(self.norm(tokens) if last else tokens)
        return kept, grid

    def forward(
        self, image: Tensor, temporal: Tensor | None = None, location: Tensor | None = None
    ) -> list[Tensor]:
        """Compute feature maps; see `Backbone.forward`. T frames give T * D features per place."""
        if temporal is not None or location is not None:
            raise ValueError(
                f"{self.card.name} takes neither time nor location: leave both arguments out."
            )
        kept, (frames, height, columns) = self.tokens(self.check_input(image))
        maps = []
        for tokens in kept:
            cells = tokens[:, 1:].transpose(1, 2)  # (B, D, T * h * w)
            cells = cells.unflatten(2, (frames, height, columns)).transpose(1, 2)
            maps.append(cells.flatten(1, 2))  # (B, T * D, h, w)
        return maps


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
        self.decoder_embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_blocks = nn.ModuleList(make_block(width, heads) for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(width, eps=1e-5)
        self.decoder_pred = nn.Linear(width, channels * encoder.patch_size**2)
        side = encoder.trained_grid
        codes = sincos_grid(width, encoder.frames, side, side).reshape(1, -1, width)
        codes = torch.cat([torch.zeros(1, 1, width), codes], dim=1)
        self.register_buffer("decoder_pos_embed", codes)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, restore: Tensor) -> Tensor:
        """Rebuild all patches.

        Args:
            tokens: Encoded class token and visible patches, (B, 1 + V, D).
            restore: (B, N) for each patch its place in [visible | masked].

        Returns:
            (B, N, p * p * C) pixel values, normalised; rows, columns, then bands.
        """
        tokens = self.decoder_embed(tokens)
        batch, patches = restore.shape
        masks = self.mask_token.expand(batch, patches + 1 - tokens.shape[1], -1)
        ordered = torch.cat([tokens[:, 1:], masks], dim=1)
        ordered = ordered.gather(1, restore[..., None].expand(-1, -1, tokens.shape[-1]))
        tokens = torch.cat([tokens[:, :1], ordered], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.decoder_pred(self.decoder_norm(tokens))[:, 1:]


class MaskedAutoencoder(nn.Module):
    """Masked autoencoder (He et al., arXiv 2111.06377) around a Prithvi-EO encoder.

    Args:
        encoder: The encoder to pretrain.
        channels: Bands C.
        decoder: (width, depth, heads) of the decoder.
    """

    def __init__(self, encoder: PrithviViT, channels: int, decoder: tuple[int, int, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = MaskedAutoencoderDecoder(encoder, channels, *decoder)

    def patches(self, image: Tensor) -> Tensor:
        """Cut (B, C, T, H, W) into (B, T * h * w, p * p * C) pixel values."""
        batch, channels, frames, height, columns = image.shape
        p = self.encoder.patch_size
        cut = image.reshape(batch, channels, frames, height // p, p, columns // p, p)
        return cut.permute(0, 2, 3, 5, 4, 6, 1).reshape(batch, -1, p * p * channels)

    def forward(
        self, image: Tensor, mask_ratio: float = 0.75, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Hide patches, encode the rest, rebuild all.

        Args:
            image: (B, C, T, H, W), normalised, of the size the encoder was made for.
            mask_ratio: Share of patches to hide, 0-1.
            generator: Source of the random choice of patches.

        Returns:
            Mean squared error over the hidden patches (a scalar, in units of the pretraining
            standard deviation squared), the rebuilt patches (B, N, p * p * C) and the mask (B, N)
            with 1 where a patch was hidden.
        """
        tokens, _ = self.encoder.embed(image)
        batch, patches, width = tokens.shape
        visible = max(1, round(patches * (1 - mask_ratio)))
        order = torch.rand(batch, patches, device=image.device, generator=generator).argsort(dim=1)
        restore = order.argsort(dim=1)
        seen = tokens.gather(1, order[:, :visible, None].expand(-1, -1, width))
        seen = self.encoder.add_class_token(seen)
        for block in self.encoder.blocks:
            seen = block(seen)
        rebuilt = self.decoder(self.encoder.norm(seen), restore)
        mask = (restore >= visible).float()  # (B, N)
        error = (rebuilt - self.patches(image)).square().mean(dim=-1)
        return (error * mask).sum() / mask.sum(), rebuilt, mask
