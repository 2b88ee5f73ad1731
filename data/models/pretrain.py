r"""Pretrain geopeft_tiny on real imagery without labels, from the command line.

    python data/models/pretrain.py --steps 5000 --lr 1.5e-3 --seed 0 --power 1 \
        --out weights/stage1.safetensors
    python data/models/pretrain.py --steps 2600 --lr 1.2e-3 --seed 1 --power 0.5 \
        --start weights/stage1.safetensors --out weights/stage2.safetensors
    python data/models/pretrain.py --steps 1000 --lr 1e-3 --seed 4 --power 0.5 \
        --teacher galileo_nano --untaught hls_water --crops 2400 --threads 2 \
        --start weights/stage2.safetensors --out weights/stage3.safetensors
    python data/models/pretrain.py --start weights/stage2.safetensors \
        --blend weights/stage3.safetensors --share 0.75 --out data/models/geopeft_tiny.safetensors

These commands made what ships, in about an hour and a half of one CPU core and eight minutes of
two. Imagery: the two scenes that ship and, where GEOPEFT_MIRROR has them, the HLS chips of
`hls_water` and the Sentinel-2 chips of `eurosat_ms`. Method: a masked autoencoder (He et al.,
arXiv 2111.06377) with plain pixel targets; in the last stage its tokens also learn the features of
a teacher (see `distil`).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from distil import GalileoTeacher, Student, TeacherBank
from masked_autoencoder import MaskedAutoencoder
from torch.nn import functional

from geopeft_nb.backbones.base import BackboneRequest
from geopeft_nb.backbones.catalog import GEOPEFT_TINY, BackboneCard
from geopeft_nb.backbones.load import read_checkpoint
from geopeft_nb.backbones.prithvi import PrithviViT
from geopeft_nb.bands import band_indices
from geopeft_nb.files import data_folder, mirror_folders

#: With a teacher: share of hidden patches, and crops per step as a share of the batch size, so
#: that each kind of step takes about as long. One of them is drawn for each step.
VISITS = ((0.75, 1.0), (0.5, 0.6), (0.0, 0.35))
#: For so many plain steps on all sources, without the teacher, there is one of each of these.
PLAIN = 2

#: Band order of the files of EuroSAT: B1-B12 by number, then B8A.
EUROSAT_BANDS = [f"B{number}" for number in range(1, 13)] + ["B8A"]


def read_imagery(bands: tuple[str, ...]) -> dict[str, list[np.ndarray]]:
    """Read all images to pretrain on.

    Args:
        bands: Bands to keep, in this order.

    Returns:
        Source name -> images (C, H, W) int16, reflectance x 10,000.
    """
    sources: dict[str, list[np.ndarray]] = {}
    for path in sorted((data_folder() / "scenes").glob("*.tif")):
        if not path.stem.endswith("_water"):
            sources[f"scenes/{path.stem}"] = [_read(path, [1, 2, 3, 4, 5, 6])]
    for folder in mirror_folders():
        chips = sorted((folder / "hls_water" / "chips").glob("*.tif"))
        if chips:
            sources["hls_water"] = [_read(path, [1, 2, 3, 4, 5, 6]) for path in chips]
        order = [index + 1 for index in band_indices(bands, EUROSAT_BANDS)]
        chips = sorted((folder / "eurosat_ms").glob("*/*.tif"))
        if chips:
            sources["eurosat_ms"] = [_read(path, order) for path in chips]
    return sources


def _read(path: Path, indexes: list[int]) -> np.ndarray:
    with rasterio.open(path) as raster:
        return np.clip(raster.read(indexes), 0, 10_000).astype(np.int16)


def random_crop(
    image: np.ndarray, side: int, rng: np.random.Generator, scale: float = 0.6
) -> torch.Tensor:
    """Cut a random square, resize it to `side`, turn and mirror it.

    Args:
        image: (C, H, W) int16.
        side: Output side in pixels.
        rng: Source of randomness.
        scale: The square's side is between `scale` and 1/`scale` times `side`, as far as it fits.

    Returns:
        (C, side, side) float32, reflectance 0-1.
    """
    most = min(image.shape[1], image.shape[2], side / scale)
    cut = int(rng.uniform(min(side * scale, most), most))
    top = int(rng.integers(image.shape[1] - cut + 1))
    left = int(rng.integers(image.shape[2] - cut + 1))
    crop = torch.from_numpy(image[:, top : top + cut, left : left + cut] / np.float32(10_000))
    if cut != side:
        crop = functional.interpolate(
            crop[None], size=(side, side), mode="bilinear", antialias=True, align_corners=False
        )[0]
    crop = torch.rot90(crop, int(rng.integers(4)), dims=(1, 2))
    return crop.flip(2) if rng.random() < 0.5 else crop


class Sampler:
    """Draws batches; a source's share is its area to a power, and its images share it by area.

    Args:
        sources: What `read_imagery` returns.
        side: Side of the crops in pixels.
        seed: Seed of all random choices.
        power: 1 sees every pixel equally often; less raises the share of small sources.
    """

    def __init__(
        self, sources: dict[str, list[np.ndarray]], side: int, seed: int, power: float
    ) -> None:
        self.images = [image for images in sources.values() for image in images]
        areas = [np.array([im.shape[1] * im.shape[2] for im in ims]) for ims in sources.values()]
        weights = np.concatenate([area / area.sum() * area.sum() ** power for area in areas])
        self.weights, self.side = weights / weights.sum(), side
        self.rng = np.random.default_rng(seed)

    def batch(self, size: int) -> torch.Tensor:
        """Return (size, C, side, side) float32, reflectance 0-1."""
        chosen = self.rng.choice(len(self.images), size=size, p=self.weights)
        return torch.stack([random_crop(self.images[i], self.side, self.rng) for i in chosen])


def make_autoencoder(card: BackboneCard) -> MaskedAutoencoder:
    """Build the untrained masked autoencoder of a Prithvi-type card."""
    assert card.decoder is not None  # every such card states the size of its decoder
    encoder = PrithviViT(card, BackboneRequest(card.bands, card.img_size, card.frames))
    return MaskedAutoencoder(encoder, len(card.bands), card.decoder)


def pretrain(
    card: BackboneCard, out: Path, *, steps: int, batch_size: int, lr: float, seed: int,
    power: float = 1.0, start: Path | None = None, teacher: str | None = None, crops: int = 8000,
    without: Sequence[str] = (), untaught: Sequence[str] = (),
) -> None:  # fmt: skip
    """Train the masked autoencoder and write weights and loss curve.

    Args:
        card: Which network, with the pretraining statistics.
        out: Weights file to write (safetensors, half precision); the curve is written beside it.
        steps: Optimiser steps.
        batch_size: Crops per step.
        lr: Peak learning rate; 5 % linear warm-up, then a cosine to zero.
        seed: Seed of weights, crops and masks.
        power: See `Sampler`.
        start: Weights to go on from, written by this function, with their record beside them.
        teacher: A Galileo whose features are a second target (see `distil`), or None.
        crops: Number of crops that the teacher looks at.
        without: Sources to leave out, for a test on images that were never seen.
        untaught: Sources that the teacher is not asked about.
    """
    torch.manual_seed(seed)
    sources = {k: v for k, v in read_imagery(card.bands).items() if k not in without}
    sampler = Sampler(sources, card.img_size, seed, power)
    model = make_autoencoder(card).train()
    stages = []
    if start is not None:
        model.load_state_dict({k: v.float() for k, v in read_checkpoint(start).items()})
        stages = json.loads(start.with_suffix(".json").read_text(encoding="utf-8"))["stages"]
    mean = torch.tensor(card.mean)[:, None, None]
    std = torch.tensor(card.std)[:, None, None]
    step_loss: Callable[[], tuple[torch.Tensor, dict[str, float]]]
    if teacher is None:
        trained: torch.nn.Module = model

        def step_loss() -> tuple[torch.Tensor, dict[str, float]]:
            image = ((sampler.batch(batch_size) - mean) / std)[:, :, None]  # (B, C, 1, H, W)
            loss = model(image)[0]
            return loss, {"loss": loss.item()}

    else:
        taught = {k: v for k, v in sources.items() if k not in untaught}
        asked = Sampler(taught, card.img_size, seed + 1, power)
        bank = TeacherBank(asked.batch, GalileoTeacher(card.bands, teacher), crops)
        trained = student = Student(model, bank.features.shape[-1])
        chance = torch.Generator().manual_seed(seed)

        def step_loss() -> tuple[torch.Tensor, dict[str, float]]:
            turn = int(torch.randint(len(VISITS) + PLAIN, (1,), generator=chance))
            if turn >= len(VISITS):
                image = ((sampler.batch(batch_size) - mean) / std)[:, :, None]
                loss = model(image)[0]
                return loss, {"loss": loss.item()}
            ratio, size = VISITS[turn]
            image, target = bank.batch(round(batch_size * size), chance)
            pixels, features = student(((image - mean) / std)[:, :, None], target, ratio)
            parts = {"features": features.item()}
            if ratio:  # one name per ratio: how much is hidden decides how hard it is
                parts[f"pixels {ratio:.0%} hidden"] = pixels.item()
            return pixels + features, parts

    decayed = [p for p in trained.parameters() if p.ndim > 1]
    others = [p for p in trained.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))
    curve, began = [], time.monotonic()
    recent: dict[str, list[float]] = defaultdict(list)
    for step in range(1, steps + 1):
        warm = step / (0.05 * steps)
        factor = warm if warm < 1 else 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = lr * factor
        loss, parts = step_loss()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step()
        for name, value in parts.items():
            recent[name].append(value)
        if step % 50 == 0 or step == steps:
            means = {name: round(float(np.mean(values)), 5) for name, values in recent.items()}
            curve.append({"step": step, **means, "seconds": round(time.monotonic() - began, 1)})
            recent.clear()
            print(curve[-1], flush=True)
        if step % 500 == 0 or step == steps:
            save_half_precision(model, out)
            stage = {
                "steps": step, "planned_steps": steps, "batch_size": batch_size, "lr": lr,
                "seed": seed, "power": power, "teacher": teacher, "untaught": list(untaught),
                "crops": crops if teacher else None, "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "images": {name: len(images) for name, images in sources.items()}, "curve": curve,
            }  # fmt: skip
            record = json.dumps({"stages": [*stages, stage]}, indent=1)
            _replace(out.with_suffix(".json"), record.encode())


def blend(first: Path, second: Path, share: float, out: Path) -> None:
    """Average two files of one training run, weight by weight (WiSE-FT, arXiv 2109.01903).

    Args:
        first: Weights before a stage.
        second: Weights after it, with their record beside them.
        share: Share of the second, 0-1.
        out: Weights file to write, with its record beside it.
    """
    from safetensors.torch import save

    before, after = read_checkpoint(first), read_checkpoint(second)
    state = {
        key: ((1 - share) * before[key].float() + share * after[key].float()).half().contiguous()
        for key in before
    }
    record = json.loads(second.with_suffix(".json").read_text(encoding="utf-8"))
    _replace(out, save(state, metadata={"format": "pt"}))
    _replace(
        out.with_suffix(".json"),
        json.dumps({**record, "share_of_last_stage": share}, indent=1).encode(),
    )


def save_half_precision(model: MaskedAutoencoder, out: Path) -> None:
    """Write the state dict in the published Prithvi-EO-2.0 key layout, as float16 safetensors."""
    from safetensors.torch import save

    state = {key: value.detach().half().contiguous() for key, value in model.state_dict().items()}
    _replace(out, save(state, metadata={"format": "pt"}))


def _replace(path: Path, content: bytes) -> None:
    """Write to a temporary name, then rename, so that no half-written file is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(path)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data/models/geopeft_tiny.safetensors"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--power", type=float, default=1.0, help="1: sources by area; 0: alike")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--teacher", help="a Galileo to learn from, such as galileo_nano")
    parser.add_argument("--crops", type=int, default=8000, help="crops that the teacher looks at")
    parser.add_argument("--without", nargs="*", default=[], help="sources to leave out")
    parser.add_argument("--untaught", nargs="*", default=[], help="sources without a teacher")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blend", type=Path, help="average these weights with --start's instead")
    parser.add_argument("--share", type=float, default=0.75, help="share of --blend's weights")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.blend:
        blend(options.start, options.blend, options.share, options.out)
        return
    pretrain(
        GEOPEFT_TINY, options.out, steps=options.steps, batch_size=options.batch_size,
        lr=options.lr, seed=options.seed, power=options.power, start=options.start,
        teacher=options.teacher, crops=options.crops, without=options.without,
        untaught=options.untaught,
    )  # fmt: skip


if __name__ == "__main__":
    main()
