"""Parts that vision transformers share: fixed position codes, blocks and the patch grid."""

import re
from collections.abc import Container, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.errors import GeopeftError


def renamed(
    state: Mapping[str, Tensor], names: Mapping[str, str], dropped: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Name the tensors of a checkpoint anew.

    Args:
        state: Key -> tensor.
        names: Pattern of published names -> ours, applied one after the other.
        dropped: How the new names of tensors begin that are left out.

    Raises:
        ValueError: Two tensors would have one name.
    """
    pairs = []
    for key, value in state.items():
        for theirs, ours in names.items():
            key = re.sub(theirs, ours, key)
        pairs.append((key, value))
    if len(kept := dict(pairs)) < len(pairs):
        raise GeopeftError("The checkpoint holds a tensor twice, with and without prefix.")
    return {key: value for key, value in kept.items() if not key.startswith(tuple(dropped))}


def split_qkv(state: Mapping[str, Tensor], wanted: Container[str]) -> dict[str, Tensor]:
    """Split fused projections of queries, keys and values, as most checkpoints hold them.

    Args:
        state: Key -> tensor; a fused one is named ``"….qkv.weight"`` or ``"….qkv.bias"``, (3 D, …).
        wanted: Keys of the network; what it has fused itself stays.

    Returns:
        The same, with tensors ``"….q.weight"``, ``"….k.weight"`` and so on, (D, …).
    """
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        owner, fused, kind = key.rpartition("qkv.")
        if fused and key not in wanted and value.ndim and value.shape[0] % 3 == 0:
            names = (f"{owner}{part}.{kind}" for part in "qkv")
            split.update(zip(names, value.chunk(3), strict=True))
        else:
            split[key] = value
    return split


def join_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `split_qkv`, for programs whose networks have the three in one layer."""
    joined = dict(state)
    for key in state:
        owner, found, kind = key.rpartition(".attn.q.")
        if found:
            parts = [joined.pop(f"{owner}.attn.{part}.{kind}") for part in "qkv"]
            joined[f"{owner}.attn.qkv.{kind}"] = torch.cat(parts)
    return joined


class SelfAttention(nn.Module):
    """Multi-head self-attention, with a layer each for queries, keys and values.

    Most networks make the three by one fused layer, which computes the same; three can be adapted
    one by one, as LoRA does with queries and values.

    Args:
        width: Features per token, D.
        heads: Attention heads; must divide `width`.
        bias: Whether the four layers have a bias.
    """

    def __init__(self, width: int, heads: int, bias: bool = True) -> None:
        super().__init__()
        self.num_heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width, bias=bias) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Attend (B, N, D) to itself: (B, N, D)."""
        return self.mix(self.q(x), self.k(x), self.v(x))

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Let queries attend to keys and values, each (B, N, D): (B, N, D)."""
        heads = [
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value)
        ]  # (B, heads, N, D / heads)
        return self.proj(functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them, each token by itself."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        return self.fc2(self.act(self.fc1(x)))


class PreNormBlock(nn.Module):
    """A transformer block: attention, then the feed-forward part, each after a layer norm.

    Args:
        width: Features per token, D.
        heads: Attention heads; must divide `width`.
        eps: Epsilon of both layer norms. Prithvi-EO uses 1e-5, timm 1e-6.
        bias: Whether the layers of the attention have a bias; Clay's have none.
    """

    def __init__(self, width: int, heads: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.attn = SelfAttention(width, heads, bias)
        self.mlp = FeedForward(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Refine tokens (B, N, D)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def run_blocks(
    blocks: nn.ModuleList, norm: nn.Module, layers: Sequence[int], tokens: Tensor, first: int = 0
) -> list[Tensor]:
    """Run a transformer up to the last chosen block and keep the outputs of the chosen ones.

    Args:
        blocks: All blocks of the network.
        norm: Its final layer norm, which only the output of its last block passes.
        layers: Indices of the chosen blocks, ascending.
        tokens: (B, N, D).
        first: Index of the block that takes the tokens; those before it have run.

    Returns:
        One (B, N, D) tensor per chosen block from `first` on, without the prompts that a PEFT
        method may have put at the end of the tokens.
    """
    kept, count = [], tokens.shape[1]
    for index in range(first, layers[-1] + 1):
        tokens = blocks[index](tokens)
        if index in layers:
            own = tokens[:, :count]
            kept.append(norm(own) if index == len(blocks) - 1 else own)
    return kept


class PatchEmbed(nn.Module):
    """Cut images into patches and project each to a token.

    Args:
        channels: Bands C.
        width: Features per token D.
        kernel: Sides of a patch: (p, p), or (t, p, p) for series of images.
    """

    def __init__(self, channels: int, width: int, kernel: tuple[int, ...]) -> None:
        super().__init__()
        conv = nn.Conv3d if len(kernel) == 3 else nn.Conv2d
        self.proj = conv(channels, width, kernel, kernel)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Embed (B, C, …, H, W) to (B, N, D): frames, if any, then rows, then columns."""
        return self.proj(image).flatten(2).transpose(1, 2)


def initialise(network: nn.Module) -> None:
    """Give all linear layers and convolutions Xavier weights and biases of zero, in place."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def sincos(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Encode M positions of any shape with (F,) frequencies as (M, 2 F): sines, then cosines.

    It computes in the precision of the frequencies; the result is float32.
    """
    angles = positions.reshape(-1).to(frequencies.dtype)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def sincos_1d(positions: Tensor, dim: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Encode M positions as (M, dim) with frequencies 10000^(-j / (dim / 2)); see `sincos`."""
    steps = torch.arange(dim // 2, dtype=dtype, device=positions.device)
    return sincos(positions, 1 / 10000.0 ** (steps / (dim / 2)))


def join_axes(columns: Tensor, rows: Tensor) -> Tensor:
    """Join the codes of columns (w, F) and of rows (h, F) to those of cells: (h, w, 2 F)."""
    shape = (len(rows), len(columns), -1)
    return torch.cat([columns[None].expand(shape), rows[:, None].expand(shape)], dim=-1)


def resize_grid(codes: Tensor, height: int, columns: int) -> Tensor:
    """Resize position codes to a grid of patches, as Prithvi does (bicubic, corners aligned).

    Args:
        codes: (T, h, w, D).
        height: New rows.
        columns: New columns.

    Returns:
        (T, height, columns, D); the same codes if that is their grid.
    """
    size, image = (height, columns), codes.movedim(3, 1)  # (T, D, h, w)
    if size == image.shape[2:]:
        return codes
    return functional.interpolate(image, size, mode="bicubic", align_corners=True).movedim(1, 3)


def position_table(width: int, frames: int, side: int) -> Tensor:
    """Make Prithvi's position codes of a class token and a square grid of patches.

    The class token's are zeros. Of a patch the features are split 6/16 for the column, 6/16 for the
    row and 4/16 for the frame, each encoded by `sincos_1d`, and concatenated in that order.

    Args:
        width: Features per token, D; a multiple of 16.
        frames: Time steps T.
        side: Rows and columns s of patches.

    Returns:
        (1, 1 + T * s * s, D) float32.
    """
    axis = sincos_1d(torch.arange(side), width // 16 * 6)
    space = join_axes(axis, axis).expand(frames, -1, -1, -1)
    time = sincos_1d(torch.arange(frames), width // 16 * 4)[:, None, None]
    codes = torch.cat([space, time.expand(-1, side, side, -1)], dim=-1)
    return torch.cat([torch.zeros(1, width), codes.flatten(0, 2)])[None]


def position_codes(table: Tensor, side: int, grid: tuple[int, int, int]) -> Tensor:
    """Fit Prithvi's position codes to a grid of patches.

    Args:
        table: What `position_table` made for T' frames and `side`, (1, 1 + T' * s * s, D).
        side: Rows and columns s of the table.
        grid: (T, h, w) that is wanted. Another T means new codes, another h or w resized ones.

    Returns:
        (1, T * h * w, D), without the class token's row.
    """
    if table.shape[1] != 1 + grid[0] * side**2:
        table = position_table(table.shape[-1], grid[0], side).to(table)
    codes = resize_grid(table[0, 1:].unflatten(0, (grid[0], side, side)), *grid[1:])
    return codes.reshape(1, -1, table.shape[-1])


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


def widened(x: Tensor) -> Tensor:
    """Return a map to be resized, in float32 if it is a half-precision one under autocast.

    On a GPU autocast does so by itself, on a CPU not; so both compute and keep the same.
    Source: PyTorch, "Autocast Op Reference", ops that autocast to float32.
    """
    half = x.dtype in (torch.bfloat16, torch.float16)
    return x.float() if half and torch.is_autocast_enabled(x.device.type) else x
