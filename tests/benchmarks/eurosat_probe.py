"""Is geopeft_tiny really pretrained? Frozen features and logistic regression, a region left out.

    GEOPEFT_MIRROR=... python tests/benchmarks/eurosat_probe.py [--weights FILE]

Features: mean over the tokens of the last block, standardised. Data: `eurosat_ms` of the mirror,
three folds, each with one of west, centre and east (split at 3 and 13 degrees east) left out.
Compared with the same network at random initialisation and with the bands' mean and deviation.
"""

import argparse
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.warp import transform
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from geopeft_nb.backbones.load import load_backbone
from geopeft_nb.bands import HLS_BANDS, band_indices
from geopeft_nb.files import find_dataset

REGIONS = ("west", "centre", "east")
#: Band order of the files: B1-B12 by number, then B8A.
EUROSAT_BANDS = [f"B{number}" for number in range(1, 13)] + ["B8A"]


def read_eurosat() -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Return images (N, 6, 64, 64) reflectance 0-1, class names (N,) and regions (N,)."""
    images, classes, regions = [], [], []
    order = [index + 1 for index in band_indices(HLS_BANDS, EUROSAT_BANDS)]
    if (folder := find_dataset("eurosat_ms")) is None:
        raise FileNotFoundError("No folder of GEOPEFT_MIRROR has eurosat_ms.")
    for path in sorted(folder.glob("*/*.tif")):
        with rasterio.open(path) as raster:
            images.append(raster.read(order).astype(np.float32) / 10_000)
            centre = raster.xy(raster.height / 2, raster.width / 2)
            longitude = transform(raster.crs, "EPSG:4326", [centre[0]], [centre[1]])[0][0]
        classes.append(path.parent.name)
        regions.append(REGIONS[int(longitude >= 3) + int(longitude >= 13)])
    return torch.from_numpy(np.stack(images)), np.array(classes), np.array(regions)


def features(images: torch.Tensor, weights: str | Path | None, seed: int = 0) -> np.ndarray:
    """Return the mean token of the last block, (N, D)."""
    backbone = load_backbone("geopeft_tiny", weights=weights, seed=seed).eval()
    mean = torch.tensor(backbone.card.mean)[:, None, None]
    std = torch.tensor(backbone.card.std)[:, None, None]
    with torch.inference_mode():
        maps = [backbone((chunk - mean) / std)[-1] for chunk in images.split(50)]
    return torch.cat(maps).mean(dim=(2, 3)).numpy()


def leave_one_region_out(
    inputs: np.ndarray, classes: np.ndarray, regions: np.ndarray
) -> list[float]:
    """Return the accuracy (0-1) in each region when trained on the two others."""
    scores = []
    for region in REGIONS:
        away = regions == region
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
        probe.fit(inputs[~away], classes[~away])
        scores.append(float(probe.score(inputs[away], classes[away])))
    return scores


def report(label: str, scores: list[float]) -> float:
    """Print one line and return the mean accuracy over the three folds."""
    folds = " / ".join(f"{score:.3f}" for score in scores)
    print(f"{label:<28} {np.mean(scores):.3f}   ({folds})", flush=True)
    return float(np.mean(scores))


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images, classes, regions = read_eurosat()
    print(f"{len(images)} chips; mean accuracy over {' / '.join(REGIONS)}")
    spectra = np.concatenate([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], axis=1)
    report("six bands, mean and std", leave_one_region_out(spectra, classes, regions))
    random = [
        report(
            f"random initialisation {seed}",
            leave_one_region_out(features(images, None, seed), classes, regions),
        )
        for seed in range(3)
    ]
    trained = report(
        "pretrained", leave_one_region_out(features(images, options.weights), classes, regions)
    )
    print(f"gain over random: {100 * (trained - np.mean(random)):.1f} points")


if __name__ == "__main__":
    main()
