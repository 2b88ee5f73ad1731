"""What torchgeo says of a weight: its bands, and its scaling in reflectance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from geopeft_nb.bands import band_name
from geopeft_nb.errors import GeopeftError

#: Reflectance that stands for 255 in the 8-bit images that some weights were trained on. This
#: toolkit's choice, a usual stretch of true-colour images: timm and torchgeo leave it to the user.
WHITE = 0.3
#: Part of the name of a torchgeo weight -> prefix of its band numbers.
_LANDSAT = {"LANDSAT_TM": "L5", "LANDSAT_ETM": "L7", "LANDSAT_OLI": "L8"}


def bands_of(name: str, numbers: Sequence[str] | None) -> tuple[str, ...]:
    """Name the bands of a weight: the same number is another band on another sensor."""
    if numbers is None and "_RGB_" in name:
        return ("RED", "GREEN", "BLUE")
    try:
        sensor = next((n for part, n in _LANDSAT.items() if part in name), "S2")
        return tuple(band_name(f"{sensor}:{number}") for number in numbers or ("not listed",))
    except ValueError as error:
        raise GeopeftError(
            f"{name} reads bands that are not in this toolkit's table of optical bands: {error} "
            "Choose a weight of Sentinel-2's bands, or of Landsat's surface reflectance."
        ) from error


def scaling_of(
    name: str, transforms: nn.Module, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Join the Normalize steps of a weight to one mean and std per band, in reflectance.

    Without such a step they are 0 and 1. Pixels are 8-bit where the first step divides by 255 or
    less in all bands, or by just 255 in this one; otherwise reflectance times 10,000.
    """
    offset, divisor, unit = torch.zeros(channels), torch.ones(channels), None
    for step in transforms.modules():
        if type(step).__name__ == "Normalize":
            mean, std = torch.as_tensor(step.mean).float(), torch.as_tensor(step.std).float()
            if float(std.max()) < 0.01:  # 1 / 255
                # SeCo's own code divides by 255 again after this step; torchgeo's does not.
                raise GeopeftError(
                    f"{name} cannot be used: torchgeo scales its images to 0-255, and then as if "
                    "they were 0-1, to around a thousand instead of one. Choose another weight."
                )
            if unit is None:
                unit = torch.where((std == 255) | (std.max() <= 255), WHITE / 255, 1 / 10_000)
            offset, divisor = offset + mean * divisor, divisor * std
    scale = torch.ones(1) if unit is None else unit
    return tuple((offset * scale).tolist()), tuple((divisor * scale).tolist())
