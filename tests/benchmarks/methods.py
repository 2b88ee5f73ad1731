r"""What does each fine-tuning method cost? Trained weights, file, memory kept, time of a step.

    python tests/benchmarks/methods.py                              # Prithvi-EO 1.0 100M, CPU
    python tests/benchmarks/methods.py --device cuda --model prithvi_eo_v2_300 --size 512 \
        --batch 8 --precision bf16

One process; every method takes turns with full fine-tuning, so that the ratio does not depend on
what else the machine does. A step is forward, cross-entropy, backward and AdamW, with the linear
decoder. "kept" counts what the forward pass keeps for the backward pass, per image; "file" are the
bytes that `save_adapter` writes. Weights are random: none of these numbers depends on them.

With `--terratorch` its LoRA on the same layers takes turns too, in an environment of its own:

    uv venv --python 3.12 terratorch-env
    uv pip install --python terratorch-env/bin/python terratorch==1.2.13 peft timm pooch
    PYTHONPATH=. terratorch-env/bin/python tests/benchmarks/methods.py --terratorch
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import geopeft_nb as gp
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.models import SegmentationModel

METHODS: dict[str, tuple[str, dict[str, object]]] = {
    "full": ("full", {}),
    "linear probe": ("linear_probe", {}),
    "LoRA paper": ("lora", {}),
    "LoRA q_v": ("lora", {"preset": "q_v"}),
    "LoRA all_linear": ("lora", {"preset": "all_linear"}),
    "LoRA fc1": ("lora", {"preset": "fc1"}),
    "LoRA late": ("lora", {"preset": "late"}),
    "shallow": ("shallow", {"depth": 6}),
    "DoRA": ("dora", {}),
    "VPT deep": ("vpt", {}),
    "VPT shallow": ("vpt", {"deep": False}),
    "adapter parallel": ("adapter", {"kind": "parallel"}),
    "adapter serial": ("adapter", {"kind": "serial"}),
    "ViT-Adapter": ("vit_adapter", {}),
    "side": ("side", {}),
    "layer norms": ("ln_tuning", {}),
    "BitFit": ("bitfit", {}),
    "IA3": ("ia3", {}),
    "VeRA": ("vera", {}),
    "LoHa": ("loha", {}),
    "LoKr": ("lokr", {}),
    "OFT": ("oft", {}),
}


@dataclass
class Candidate:
    """A model that can take a training step."""

    name: str
    model: nn.Module
    encoder: Callable[[], nn.Module]
    optimiser: torch.optim.Optimizer

    def trainable(self) -> int:
        """Count the trained weights of the encoder."""
        return sum(p.numel() for p in self.encoder().parameters() if p.requires_grad)


def ours(card: str, size: int, label: str, device: str) -> Candidate:
    """Build our model with a method attached."""
    backbone = gp.load_backbone(card, weights=None, img_size=size)
    model = SegmentationModel(backbone, "linear", {}, *backbone.scaling(), ("no", "yes"))
    words = dict.fromkeys(("normalise", "title", "labels", "licence", "citation"), "none")
    model.built_for = words | {"size": size, "regions": [], "holdout": [], "synthetic": True}
    model.built_for |= {"reflectance": True}
    method, options = METHODS[label]
    gp.attach(model, method, **options)
    return finish(label, model, lambda: model.backbone, device)


def terratorch_lora(card: str, size: int, device: str) -> Candidate:
    """Build TerraTorch's Prithvi with LoRA on the layers of the paper."""
    from terratorch.models.peft_utils import get_peft_backbone
    from terratorch.registry import BACKBONE_REGISTRY

    backbone = BACKBONE_REGISTRY.build(
        f"terratorch_{card}", pretrained=False, num_frames=1, img_size=size, out_indices=[-1]
    )
    targets = ["qkv.q_linear", "qkv.v_linear", "mlp.fc1", "mlp.fc2"]
    backbone = get_peft_backbone(
        {
            "method": "LORA", "replace_qkv": "qkv",
            "peft_config_kwargs": {"target_modules": targets, "r": 16, "lora_alpha": 16},
        },
        backbone,
    )  # fmt: skip
    width = gp.load_backbone(card, weights=None).channels[-1]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.decoder = backbone, nn.ConvTranspose2d(width, 2, 16, stride=16)

        def forward(self, image: Tensor) -> Tensor:
            maps = self.backbone.prepare_features_for_image_model(self.backbone(image))
            return self.decoder(maps[-1])

    model = Model()
    return finish("TerraTorch LoRA", model, lambda: model.backbone, device)


def finish(
    label: str, model: nn.Module, encoder: Callable[[], nn.Module], device: str
) -> Candidate:
    """Move a model to its device, into training mode, and give it an optimiser."""
    model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    return Candidate(label, model, encoder, torch.optim.AdamW(trained, lr=1e-4))


class Batch:
    """Random images and labels, and the loss on them."""

    def __init__(self, options: argparse.Namespace) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (options.batch, options.size, options.size)
        image = torch.rand(options.batch, 6, *shape[1:], generator=generator)
        mask = torch.randint(2, shape, generator=generator)
        self.image, self.mask = image.to(options.device), mask.to(options.device)
        self.device, self.bf16 = options.device, options.precision == "bf16"

    def loss(self, model: nn.Module) -> Tensor:
        """Return the cross-entropy of a model on the batch."""
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16):
            return functional.cross_entropy(model(self.image).float(), self.mask)

    def step(self, candidate: Candidate) -> float:
        """Take a step and return its seconds."""
        self._wait()
        start = time.perf_counter()
        self.loss(candidate.model).backward()
        candidate.optimiser.step()
        candidate.optimiser.zero_grad(set_to_none=True)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def kept(batch: Batch, candidate: Candidate) -> float:
    """Return the MiB per image that the forward pass keeps for the backward pass."""
    parts = training_bytes(candidate.model, lambda: batch.loss(candidate.model))
    return parts["activations"] / 2**20 / len(batch.image)


def file_megabytes(candidate: Candidate) -> float:
    """Return the size of what `save_adapter` writes, in MB, or NaN for a model of others."""
    if not isinstance(candidate.model, SegmentationModel):
        return float("nan")
    with tempfile.TemporaryDirectory() as folder:
        path = gp.save_adapter(candidate.model, Path(folder) / "adapter")
        return sum(file.stat().st_size for file in path.iterdir()) / 1e6


def race(batch: Batch, first: Candidate, second: Candidate, rounds: int) -> list[float]:
    """Let two candidates take turns; return the median seconds of each."""
    batch.step(first), batch.step(second)  # warm up
    times: dict[str, list[float]] = {first.name: [], second.name: []}
    for turn in range(rounds):
        for candidate in (first, second) if turn % 2 else (second, first):
            times[candidate.name].append(batch.step(candidate))
    return [statistics.median(seconds) for seconds in times.values()]


def report(batch: Batch, full: Candidate, candidate: Candidate, rounds: int) -> None:
    """Print one row."""
    reference, own = race(batch, full, candidate, rounds)
    print(
        f"{candidate.name:18}{candidate.trainable():12,}{file_megabytes(candidate):9.1f}"
        f"{kept(batch, candidate):10.1f}{own:8.3f}{own / reference:7.3f}",
        flush=True,
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="prithvi_eo_v1_100")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--terratorch", action="store_true")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    batch = Batch(options)
    print(
        f"{options.model}, {options.size} x {options.size}, batch {options.batch}, "
        f"{options.precision}, {options.device}, {options.threads} threads"
    )
    print(
        f"{'method':18}{'trained':>12}{'file MB':>9}{'kept MiB':>10}{'s/step':>8}{'ratio':>7}"
        "  (ratio: of the step to that of full fine-tuning)"
    )
    full = ours(options.model, options.size, "full", options.device)
    size, base = file_megabytes(full), kept(batch, full)
    print(f"{'full':18}{full.trainable():12,}{size:9.1f}{base:10.1f}", flush=True)
    for label in options.methods:
        if label == "full":
            continue
        candidate = ours(options.model, options.size, label, options.device)
        report(batch, full, candidate, options.rounds)
        if label == "LoRA paper" and options.terratorch:
            theirs = terratorch_lora(options.model, options.size, options.device)
            report(batch, full, theirs, options.rounds)
            del theirs
        del candidate
        gc.collect()


if __name__ == "__main__":
    sys.exit(main())
