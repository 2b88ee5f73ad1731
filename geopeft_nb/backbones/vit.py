"""Parts that vision transformers share: fixed position codes, blocks and the patch grid."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional


class FusedQKV(nn.Linear):
    """The linear layer (D -> 3D) that makes queries, keys and values at once.

    It computes exactly what `nn.Linear` does. It has a class of its own so that a PEFT method can
    recognise it and adapt queries and values without touching the keys.
    """


def make_block(width: int, heads: int, mlp_ratio: float = 4.0, eps: float = 1e-5) -> nn.Module:
    """Make one pre-norm transformer block on (B, N, D) tokens, from timm.

    Args:
        width: Features per token, D.
        heads: Attention heads; must divide `width`.
        mlp_ratio: Hidden features of the feed-forward part, as a multiple of D.
        eps: Epsilon of both layer norms. Prithvi-EO uses 1e-5, timm's default is 1e-6.

    Returns:
        A timm `Block` whose `attn.qkv` is a `FusedQKV`; the parameter names stay timm's.
    """

    def norm(features: int, **kwargs: object) -> nn.Module:
        return nn.LayerNorm(features, eps=eps)

    block = Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm)  # type: ignore[arg-type]
    block.attn.qkv.__class__ = FusedQKV
    return block


def sincos_1d(positions: Tensor, dim: int) -> Tensor:
    """Encode positions as [sin | cos] with frequencies 10000^(-j / (dim / 2)).

    Args:
        positions: Any shape, any unit.
        dim: Even number of features.

    Returns:
        `positions` flattened to (M,), encoded as (M, dim).
    """
    omega = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angles = positions.reshape(-1).to(torch.float64)[:, None] * omega  # (M, dim / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def sincos_grid(width: int, frames: int, height: int, columns: int) -> Tensor:
    """Make Prithvi's position codes of a (frames, height, columns) grid of patches.

    The features are split 6/16 for the column, 6/16 for the row and 4/16 for the frame, each
    encoded by `sincos_1d`, and concatenated in that order.

    Args:
        width: Features per token, D; a multiple of 16.
        frames: Time steps T.
        height: Rows of patches h.
        columns: Columns of patches w.

    Returns:
        (T, h, w, D) float32.
    """
    space, time = width // 16 * 6, width // 16 * 4
    shape = (frames, height, columns)
    code_w = sincos_1d(torch.arange(columns), space)[None, None].expand(*shape, space)
    code_h = sincos_1d(torch.arange(height), space)[None, :, None].expand(*shape, space)
    code_t = sincos_1d(torch.arange(frames), time)[:, None, None].expand(*shape, time)
    return torch.cat([code_w, code_h, code_t], dim=-1)


def resize_grid(codes: Tensor, height: int, columns: int) -> Tensor:
    """Resize position codes to another grid of patches, as Prithvi does (bicubic, corners aligned).

    Args:
        codes: (T, h, w, D).
        height: New rows.
        columns: New columns.

    Returns:
        (T, height, columns, D); the same tensor if the grid already fits.
    """
    if codes.shape[1:3] == (height, columns):
        return codes
    image = codes.permute(0, 3, 1, 2)  # (T, D, h, w)
    image = functional.interpolate(
        image, size=(height, columns), mode="bicubic", align_corners=True
    )
    return image.permute(0, 2, 3, 1)


def pad_to_patches(image: Tensor, patch_size: int) -> Tensor:
    """Repeat the last row and column until patches fill the image.

    Args:
        image: (B, C, T, H, W).
        patch_size: Patch side p in pixels.

    Returns:
        (B, C, T, H', W') with H' and W' the next multiples of p; unchanged if they already are.
    """
    bottom, right = -image.shape[-2] % patch_size, -image.shape[-1] % patch_size
    if bottom or right:
        image = functional.pad(image, (0, right, 0, bottom, 0, 0), mode="replicate")
    return image
