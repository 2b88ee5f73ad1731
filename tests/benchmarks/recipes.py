r"""What does each frugal recipe save? Kept bytes by recipe, and how long an epoch takes with cache.

    python tests/benchmarks/recipes.py                      # geopeft_tiny, on chips of 64 px
    python tests/benchmarks/recipes.py --model prithvi_eo_v1_100 --size 224 --batch 1 --epochs 0

The first table counts what one training step keeps (`training_bytes`, linear decoder, float32), in
MiB, and the error of the gradients: |g - g'| / |g| over all weights that both train. The second
trains on the shipped scenes and gives the processor seconds of each epoch, validation included, on
one thread; its ratio is the median of the epochs after the first, cached to not cached.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn import functional

import geopeft_nb as gp
from geopeft_nb.decoders.linear import LinearDecoder
from geopeft_nb.memory.frugal import RECIPES, applied
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.models import SegmentationModel

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "LoRA": ("lora", {}),
    "DoRA": ("dora", {}),
    "linear probe": ("linear_probe", {}),
}
CACHED = [("linear_probe", {}), ("lora", {"preset": "late"})]


def build(card: str, size: int, method: str, options: dict[str, Any]) -> SegmentationModel:
    """Build a model with random weights, moved away from a start at which much is zero."""
    backbone = gp.load_backbone(card, weights=None, img_size=size)
    decoder = LinearDecoder(backbone.channels, 2, backbone.patch_size)
    model = SegmentationModel(backbone, decoder, *backbone.scaling(), ("no", "yes"))
    gp.attach(model, method, **options).train()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model


def memory(card: str, size: int, batch: int) -> None:
    """Print the first table."""
    torch.manual_seed(0)
    image, mask = torch.rand(batch, 6, size, size), torch.randint(2, (batch, size, size))

    def loss(model: SegmentationModel) -> Tensor:
        return functional.cross_entropy(model(image), mask)

    def gradients(model: SegmentationModel) -> dict[str, Tensor]:
        model.zero_grad()
        loss(model).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    print(f"{card}, {size} x {size} px, batch {batch}, kept MiB")
    print(
        f"{'':14}{'recipe':12}{'weights':>9}{'grad+opt':>10}{'activ.':>9}{'total':>9}{'error':>9}"
    )
    for label, (method, options) in METHODS.items():
        model = build(card, size, method, options)
        exact = gradients(model)
        for recipe in [None, *(name for name in RECIPES if name != "cached"), "all"]:
            try:
                with applied(model, recipe):
                    parts = training_bytes(model, lambda: loss(model))  # noqa: B023 - runs at once
                    found = gradients(model)
            except ValueError:
                continue  # does not suit the method
            both = exact.keys() & found.keys()
            off = sum(float((exact[n] - found[n]).square().sum()) for n in both)
            whole = sum(float(exact[n].square().sum()) for n in both)
            mib = {key: value / 2**20 for key, value in parts.items()}
            print(
                f"{label:14}{recipe or '-':12}{mib['weights']:9.1f}"
                f"{mib['gradients'] + mib['optimiser']:10.1f}{mib['activations']:9.1f}"
                f"{mib['total']:9.1f}{(off / whole) ** 0.5:9.0e}",
                flush=True,
            )


def epochs(card: str, count: int, batch: int) -> None:
    """Print the second table."""
    data = gp.load_data("scenes")
    seconds: list[float] = []

    class Clock(Callback):
        """Notes the seconds of each epoch."""

        def on_train_epoch_start(self, *_: Any) -> None:  # noqa: ANN401
            self.began = time.process_time()

        def on_train_epoch_end(self, *_: Any) -> None:  # noqa: ANN401
            seconds.append(time.process_time() - self.began)

    print(f"{card}, {len(data.train)} chips of {data.size} px, batch {batch}: processor seconds")
    for method, options in CACHED:
        medians = []
        for frugal in (None, "cached"):
            seconds.clear()
            weights = "pretrained" if card == "geopeft_tiny" else None
            backbone = gp.load_backbone(card, weights=weights)
            model = gp.attach(gp.build_model(backbone, data, pad=True), method, **options)
            gp.fit(
                model, data, epochs=count, batch_size=batch, frugal=frugal, dashboard=False,
                callbacks=[Clock()],
            )  # fmt: skip
            medians.append(statistics.median(seconds[1:]))
            shown = " ".join(f"{value:.2f}" for value in seconds)
            print(f"{method:14}{frugal or '-':8}{shown}", flush=True)
        print(f"{method:14}ratio from the second epoch on: {medians[1] / medians[0]:.3f}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="geopeft_tiny")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    memory(options.model, options.size, options.batch)
    if options.epochs:
        epochs(options.model, options.epochs, options.batch)


if __name__ == "__main__":
    main()
