"""Masked reconstruction with sliders: hide more of an image, see what a model makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from geopeft_nb.bands import band_indices
from geopeft_nb.errors import GeopeftError
from geopeft_nb.widgets.redrawn import Redrawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geopeft_nb.backbones.masked_autoencoder import MaskedAutoencoder

HIDDEN = 0.55  # grey of a hidden patch
GAMMA = 0.7  # brightens dark land, which would drown beside a bright beach


class Reconstructions(Redrawn):
    """Input, what the model sees, what it rebuilds, and how wrong that is; with sliders.

    Args:
        autoencoder: From `load_autoencoder`, for the bands of the samples in their order.
        samples: Samples of a data set, with `image` (C, H, W) in reflectance 0-1, `name`
            and `region`.
        mask_ratio: Share of the patches to hide at first, 0-1.
        seed: Seed of the choice of patches. One seed hides ever more patches as the share grows,
            and never shows one again.
        stretch: Reflectance (red, green, blue) that is drawn black and white, for each region; by
            default the 1 % and 99 % quantiles of the samples of a region.

    Attributes:
        chip: Index of the sample that is shown.
        mask_ratio: Share of patches that is hidden.
        seed: Seed in use.
        worst: Error at the end of the colour scale, in pretraining standard deviations: nine of
            ten pixels lie closer to their chip's mean. It depends on the samples
            alone, so that the eye can compare one position of the slider with the next.

    Raises:
        ValueError: No sample, or an image whose bands are not the model's.
    """

    style = "gp-reconstruction"

    def __init__(
        self,
        autoencoder: MaskedAutoencoder,
        samples: Sequence[dict[str, Any]],
        mask_ratio: float = 0.75,
        seed: int = 0,
        stretch: Mapping[str, Sequence[Tensor]] | None = None,
    ) -> None:
        if not samples:
            raise GeopeftError("samples is empty; give at least one sample of a data set.")
        self.autoencoder, self.samples = autoencoder, list(samples)
        self.chip, self.mask_ratio, self.seed = 0, mask_ratio, seed
        self.encoder = autoencoder.encoder
        for sample in samples:
            self.encoder.check_input(sample["image"][None])
        self.stretch = stretch or self._stretch()
        far = [self._far(self.encoder.normalise(sample["image"][None])[0]) for sample in samples]
        self.worst = float(np.quantile(torch.cat(far).numpy(), 0.9))

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rebuild the chosen sample.

        Returns:
            Image and rebuilt image (C, H, W), both normalised, and the mask (H, W), True where
            pixels were hidden.
        """
        image = self.encoder.normalise(self.samples[self.chip]["image"][None])[:, :, None]
        generator = torch.Generator().manual_seed(self.seed)
        rebuilt, mask = self.autoencoder.reconstruct(image, self.mask_ratio, generator)
        return image[0, :, 0], rebuilt[0, :, 0], mask[0, 0] > 0

    def draw(self) -> tuple[Figure, str]:
        """Return the figure and what it shows in words."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        image, rebuilt, mask = self.compute()
        wrong = (rebuilt - image).square().mean(dim=0).sqrt()  # (H, W)
        naive = image - image[:, ~mask].mean(dim=1)[:, None, None]
        error, naive_error = (_rms(part[:, mask]) for part in (rebuilt - image, naive))
        share = float(mask.float().mean())
        before, after = self._pictures(image, rebuilt)
        seen = np.where(mask[..., None].numpy(), HIDDEN, before)

        figure = Figure(figsize=(11, 3.3), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, 4)
        titles = (
            "image",
            f"visible ({share:.0%} hidden)",
            "rebuilt",
            "error (light grey: was visible)",
        )
        for axis, title, picture in zip(axes, titles, (before, seen, after, None), strict=True):
            axis.set(xticks=[], yticks=[])
            axis.set_title(title, fontsize=10)
            if picture is not None:
                axis.imshow(picture)
        shown = np.ma.masked_where(~mask.numpy(), wrong.numpy())
        drawn = axes[3].imshow(shown, cmap="cividis", vmin=0, vmax=self.worst)
        axes[3].set_facecolor("#DDDDDD")
        label = "error (pretraining std)"
        figure.colorbar(drawn, ax=axes[3], label=label, extend="max")
        sample = self.samples[self.chip]
        words = (
            f"{sample['name']}: root mean square error on hidden pixels {error:.2f}; "
            f"filled with the mean of what is visible {naive_error:.2f}"
        )
        figure.suptitle(words, fontsize=11)
        alt = (
            "Four pictures of a chip: in true colour, with hidden patches in grey, rebuilt by the "
            f"model, and the error. {share:.0%} of the pixels are hidden. {words}."
        )
        return figure, alt

    def controls(self, **look: Any) -> dict[str, Any]:  # noqa: ANN401 - ipywidgets has no types
        """Return a control each for share, chip and seed."""
        import ipywidgets as widgets

        return {
            "mask_ratio": widgets.FloatSlider(
                self.mask_ratio, min=0.05, max=0.95, step=0.05, readout_format=".0%",
                description="Hidden:", **look,
            ),
            "chip": widgets.Dropdown(
                options=[(str(s["name"]), i) for i, s in enumerate(self.samples)], value=self.chip,
                description="Chip:", **look,
            ),
            "seed": widgets.IntSlider(
                self.seed, min=0, max=20, description="Seed:", **look
            ),
        }  # fmt: skip

    def _colours(self, image: Tensor) -> Tensor:
        """Return red, green and blue of images (…, C, H, W)."""
        return image[..., band_indices(["RED", "GREEN", "BLUE"], self.encoder.bands), :, :]

    def _stretch(self) -> dict[str, Tensor]:
        """Return what is black and white in each region, (2, 3) in reflectance."""
        quantiles = torch.tensor([0.01, 0.99])
        regions: dict[str, list[Tensor]] = {}
        for sample in self.samples:
            pixels = self._colours(sample["image"]).flatten(1)
            regions.setdefault(sample["region"], []).append(pixels)
        return {
            name: torch.cat(pixels, dim=1).quantile(quantiles, dim=1)
            for name, pixels in regions.items()
        }

    @staticmethod
    def _far(image: Tensor) -> Tensor:
        """Return how far each pixel of (C, H, W) lies from the mean pixel, over all bands."""
        pixels = image.flatten(1)
        return (pixels - pixels.mean(dim=1, keepdim=True)).square().mean(dim=0).sqrt()

    def _pictures(self, *images: Tensor) -> list[np.ndarray]:
        """Return true-colour pictures (H, W, 3), stretched alike for all samples of a region."""
        offset, divisor = (value[:, None, None] for value in self.encoder.scaling())
        low, high = self.stretch[self.samples[self.chip]["region"]]
        pictures = [self._colours(image * divisor + offset).movedim(0, -1) for image in images]
        shares = [((part - low) / (high - low).clip(1e-6)).clip(0, 1) for part in pictures]
        return [(part**GAMMA).numpy() for part in shares]


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt()) if values.numel() else 0.0
