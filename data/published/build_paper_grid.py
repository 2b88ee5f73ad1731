"""Write paper.csv, the grid of `gp.run_benchmark("paper")`, from recipes.csv: run it by hand.

recipes.csv says what the authors' 202 configuration files say. Here that becomes the arguments of
`load_data`, `load_backbone`, `build_model`, `attach` and `fit`. What all files share stands below;
README.md names the source.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).resolve().parent
#: Name of a backbone there -> here.
BACKBONES = {
    "clay_v1_base": "clay_v1_base", "prithvi_eo_v1_100": "prithvi_eo_v1_100",
    "prithvi_eo_v2_300": "prithvi_eo_v2_300", "prithvi_eo_v2_300_tl": "prithvi_eo_v2_300_tl",
    "resnet50": "unet", "ssl4eos12_resnet50_sentinel2_all_decur": "decur_resnet50",
    "timm_vit_base_patch16_224.augreg_in21k_ft_in1k":
        "timm:vit_base_patch16_224.augreg_in21k_ft_in1k",
}  # fmt: skip
#: Folder of a configuration -> name of the model in the published tables.
MODELS = {
    "clay_gw_clay_bands": "Clay v1", "clay_gw_prithvi_bands": "Clay v1 (6 bands)",
    "decur_decur_bands": "DeCUR", "decur_prithvi_bands": "DeCUR (6 bands)",
    "prithvi_eo_v1_100": "Prithvi 1.0 100M", "prithvi_eo_v2_300": "Prithvi 2.0 300M",
    "unet_resnet50": "UNet (Rand.)", "vit_IN_21k": "ViT (IN-21K)",
}  # fmt: skip
#: Run there -> method here and its options; other runs train all weights.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear_probing": ("linear_probe", {}),
    "lora": ("lora", {"r": 16, "lora_alpha": 16}),
    "vpt": ("vpt", {"prompts": 100, "dropout": 0.1}),
    "vit_adapter": ("vit_adapter", {}),
}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "FCNDecoder": ("fcn", {"channels": 512, "convs": 4}),
    "UNetDecoder": ("unet", {"channels": [512, 256, 128, 64]}),
    "UperNetDecoder": ("upernet", {"channels": 256}),
}
RED_EDGE = ["RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3", "NIR_BROAD"]
CLAY_BANDS = ["BLUE", "GREEN", "RED", *RED_EDGE, "NIR_NARROW", "SWIR_1", "SWIR_2"]
#: All that a data set has; only the chips of Sen1Floods11 have CIRRUS.
ALL_BANDS = ["COASTAL_AEROSOL", *CLAY_BANDS[:8], "WATER_VAPOR", "CIRRUS", "SWIR_1", "SWIR_2"]
#: Data set -> what its loader knows of day and place: GEO-Bench's chips state no place, and those
#: of South Africa no day.
METADATA: dict[str, Any] = {"m_cashew_plantation": ["time"], "m_sa_crop_type": False}


def cell(recipe: pd.Series) -> dict[str, Any]:
    """Turn what one configuration says into a row of the grid."""
    told, variant = recipe.dropna(), str(recipe["data"])
    data_options, backbone_options = {}, {}
    if "clay_bands" in variant:
        data_options["bands"] = CLAY_BANDS
    if "decur_bands" in variant:
        left_out = "" if recipe["dataset"] == "sen1floods11" else "CIRRUS"
        data_options["bands"] = [band for band in ALL_BANDS if band != left_out]
    if told.get("layers", "[-1]") != "[-1]":
        backbone_options["layers"] = json.loads(recipe["layers"])
    if recipe["backbone"] == "clay_v1_base" and recipe["dataset"] == "burn_scars":
        backbone_options["gsd"] = 30
    takes = ("clay_tlgw", "prithvi_tl")
    metadata = variant.startswith(takes) and METADATA.get(recipe["dataset"], True)
    decoder, decoder_options = DECODERS.get(str(told.get("decoder")), ("linear", {}))
    method, options = METHODS.get(str(told.get("run")), ("full", {}))
    large = 4 if variant.endswith("bs_4") else 8
    return {
        "experiment": recipe["experiment"],
        "model": MODELS.get(recipe["model"]) if recipe["experiment"] == "peft" else recipe["model"],
        "backbone": BACKBONES[recipe["backbone"]],
        "backbone_options": json.dumps(backbone_options),
        "data": recipe["dataset"].lower(),
        "data_options": json.dumps(data_options),
        "decoder": decoder,
        "decoder_options": json.dumps(
            {"normalise": "dataset", "metadata": metadata} | decoder_options
        ),
        "method": method,
        "options": json.dumps(options),
        "lr": recipe["lr"],
        "batch_size": 32 if recipe["dataset"] == "reBEN_7k" else large,
        "epochs": 100, "patience": 15, "weight_decay": 0.01, "precision": "fp32", "seed": 0,
    }  # fmt: skip


def main() -> None:
    """Write the grid."""
    recipes = pd.read_csv(HERE / "recipes.csv")
    cells = pd.DataFrame([cell(recipe) for _, recipe in recipes.iterrows()])
    cells.to_csv(HERE / "paper.csv", index=False)


if __name__ == "__main__":
    main()
