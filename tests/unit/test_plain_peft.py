"""An adapter saved here is a plain one of peft: stock peft reads it, with and without us."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import HRAConfig, LoraConfig, PeftConfig

import geopeft_nb as gp

#: On a vision transformer that is written out here, with the weights of the published file.
ON_ANOTHER_NETWORK = """
import sys
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

folder, weights = sys.argv[1:]
WIDTH, HEADS, PATCH, BLOCKS = 192, 6, 8, 6


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        parts = (layer(x).unflatten(2, (HEADS, -1)) for layer in (self.q, self.k, self.v))
        heads = (part.transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(*heads)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn, self.mlp = Attention(), Mlp()

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, codes):
        super().__init__()
        self.proj = nn.Conv3d(6, WIDTH, (1, PATCH, PATCH), (1, PATCH, PATCH))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.codes = codes  # (1, 1 + N, D): sines and cosines, which the file does not hold

    def forward(self, image):
        patches = self.proj(image[:, :, None]).flatten(2).transpose(1, 2)
        cls = self.cls_token.expand(len(image), -1, -1)
        x = torch.cat([cls, patches], dim=1) + self.codes
        for block in self.blocks:
            x = block(x)
        side = image.shape[-1] // PATCH
        return [self.norm(x)[:, 1:].transpose(1, 2).unflatten(2, (side, side))]


told = torch.load(f"{folder}/told.pt")
state = {}
for key, value in load_file(weights).items():
    key = key.removeprefix("encoder.").replace("patch_embed.proj", "proj")
    if key.startswith("decoder") or "pos_embed" in key:
        continue
    if ".qkv." in key:
        for part, own in zip("qkv", value.chunk(3)):
            state[key.replace(".qkv.", f".{part}.")] = own
    else:
        state[key] = value
network = ViT(told["codes"])
network.load_state_dict({key: value.float() for key, value in state.items()})
model = PeftModel.from_pretrained(network, folder).eval()
assert not any(name.startswith("geopeft_nb") for name in sys.modules)
"""

#: On the backbone of the toolkit, whose methods cannot be imported.
ON_OUR_BACKBONE = """
sys.modules["geopeft_nb.tuning"] = None
import geopeft_nb as gp
model = PeftModel.from_pretrained(gp.load_backbone("geopeft_tiny"), folder).eval()
"""

COMPARE = """
told = torch.load(f"{folder}/told.pt")
with torch.no_grad():
    apart = (model(told["image"])[-1] - told["features"]).abs().max()
    with model.disable_adapter():
        moved = (model(told["image"])[-1] - told["features"]).abs().max()
print(float(apart), float(moved))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter whose LoRA moves the features, and what it gives for an image."""
    data, backbone = gp.load_data("scenes"), gp.load_backbone("geopeft_tiny")
    model = gp.attach(gp.build_model(backbone, data), "lora", r=4).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))
        side = backbone.trained_grid * backbone.patch_size
        image = torch.randn(2, 6, side, side, generator=generator)
        features = model.backbone(image)[-1]
    folder = gp.save_adapter(model, tmp_path_factory.mktemp("saved") / "adapter")
    told = {"image": image, "features": features, "codes": backbone.pos_embed}
    torch.save(told, folder / "told.pt")
    return folder


def test_stock_peft_reads_what_was_saved_without_us_and_without_our_methods(saved: Path) -> None:
    code = ON_ANOTHER_NETWORK + COMPARE + ON_OUR_BACKBONE + COMPARE
    weights = Path(gp.load_backbone("geopeft_tiny").provenance["weights"])
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved), str(weights)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    assert len(found) == 2 and all(apart <= 1e-6 and moved > 0.01 for apart, moved in found)


def test_the_saved_config_is_plain(saved: Path) -> None:
    config = json.loads((saved / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert sorted(config["target_modules"]) == ["fc1", "fc2", "q", "v"]


@pytest.mark.parametrize(
    ("config", "method"),
    [
        (LoraConfig(r=4, target_modules=["q", "v"]), "lora"),
        (LoraConfig(use_dora=True, target_modules="blocks.5.mlp.fc1"), "dora"),
        (HRAConfig(r=4, target_modules=["fc1"]), "peft"),
    ],
)
def test_any_config_of_peft_can_be_attached_saved_and_loaded(
    config: PeftConfig, method: str, tmp_path: Path
) -> None:
    data = gp.load_data("scenes")
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data)
    gp.attach(model, config).eval()
    assert model.method == method and gp.parameter_table(model).loc["adapter", "trainable"] > 0
    again = gp.load_model(gp.save_adapter(model, tmp_path / "adapter"))
    assert again.method_options == model.method_options != {}
    image = data.test[0]["image"][None]
    with torch.no_grad():
        assert torch.equal(again(image), model(image))


def test_a_config_with_a_name_that_no_layer_has_is_refused() -> None:
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), gp.load_data("scenes"))
    with pytest.raises(ValueError, match=r"No layer of geopeft_tiny ends in 'qkv'.*attn.q"):
        gp.attach(model, LoraConfig(target_modules=["qkv", "fc1"]))
    with pytest.raises(ValueError, match="A config says all options itself; got r besides"):
        gp.attach(model, LoraConfig(target_modules=["q"]), r=4)
    assert model.method is None
