"""The model card: what somebody must know before using an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from geopeft_nb.datasets.load import LOADERS
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tuning.methods import CARDS, parameter_table

if TYPE_CHECKING:
    from geopeft_nb.evaluation.regions import Report
    from geopeft_nb.training.fit import Run


def write_card(
    path: Path,
    name: str,
    model_or_run: SegmentationModel | Run,
    report: Report | None,
    licence: str | None,
) -> None:
    """Write the model card beside the files that it lists; arguments as in `save_adapter`.

    Args:
        path: The card.
        name: Name of the folder, for the code that loads it.
        model_or_run: The model, or the run, whose best validation score is then told.
        report: Scores region by region, or None.
        licence: The licence that was given, or None.
    """
    model = cast("SegmentationModel", getattr(model_or_run, "model", model_or_run))
    card, backbone = CARDS[str(model.method)], model.plain_backbone
    facts, weights = model.built_for, backbone.provenance
    data = facts.get("data")
    counts = parameter_table(model)["trainable"]
    options = ", ".join(f"{key}={value!r}" for key, value in model.method_options.items())
    scaling = [
        f"| {band} | {mean:.6f} | {std:.6f} |"
        for band, mean, std in zip(
            model.bands, model.mean.flatten().tolist(), model.std.flatten().tolist(), strict=True
        )
    ]
    sizes = [
        f"- `{file.name}`: {file.stat().st_size:,} bytes" for file in sorted(path.parent.iterdir())
    ]
    trained = [f"- {part}: {count:,}" for part, count in counts.items() if count]
    lines = [
        f"# {card.title} for {backbone.card.title}",
        "",
        f"Task: {model.task}. Classes, in order: {', '.join(model.classes)}.",
        "",
        "## Backbone",
        f"{backbone.card.title} (`{backbone.card.name}`), weights "
        f"`{Path(weights['weights']).name}`, "
        + (f"sha256 `{weights['sha256']}`." if "sha256" in weights else "no published checkpoint."),
        *([f"Adapted: {weights['adapted']}."] if "adapted" in weights else []),
        "",
        "## Input",
        f"{units(data)}. Each band, in this order, is scaled by (x - offset) / divisor "
        f"(normalise={facts.get('normalise', 'unknown')!r}).",
        f"Metadata: {' and '.join(model.metadata) or 'none'}.",
        "",
        *["| band | offset | divisor |", "|---|---|---|", *scaling],
        "",
        "## What was trained",
        f"{card.title} ({card.citation}): {card.trains}. Options: {options or 'defaults'} "
        f"({card.options}). Decoder: {model.decoder_name} {model.decoder_options or ''}".rstrip(),
        "",
        *["Trained weights:", *trained, "", "Files:", *sizes],
        "",
        "## Data",
        *_data(data, facts),
        "",
        "## Scores",
        *_scores(model_or_run, report),
        "",
        "## Licence",
        licence
        or f"Derived, not chosen by the author: the backbone is {backbone.card.licence}, the data "
        f"are {data.licence if data else 'unknown'}. Whoever uses it must keep to both.",
        "",
        "## How to load it",
        *["```python", *_code(name, model), "```", ""],
    ]
    path.write_text("\n".join(lines))


def units(data: Any) -> str:  # noqa: ANN401 - a DataCard or None
    """Say what the numbers of the images are."""
    if data is None or data.reflectance:
        return "Reflectance 0-1"
    return f"The numbers of {data.title}, which are not reflectance"


def _data(data: Any, facts: dict[str, Any]) -> list[str]:  # noqa: ANN401 - a DataCard or None
    if data is None:
        return ["Unknown: the model was not made by build_model."]
    return [
        f"{'SYNTHETIC: ' if data.synthetic else ''}{data.title}. Labels: {data.labels}. "
        f"Licence: {data.licence}. {data.citation}",
        "",
        f"Trained on places of: {', '.join(facts['regions'])}. Held out: "
        f"{', '.join(facts['holdout']) or 'no region'}.",
    ]


def _scores(model_or_run: SegmentationModel | Run, report: Report | None) -> list[str]:
    lines = []
    if best := getattr(model_or_run, "best", None):
        values = ", ".join(f"{key} {value:.4g}" for key, value in best.items())
        lines = [f"On the validation chips, which chose the weights that are kept: {values}.", ""]
    if report is None:
        return [*lines, "Not evaluated: there are no scores on test chips or held-out regions."]
    score = report.score
    lines += [
        f"| region | role | chips | places | {score} | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    return lines + [
        f"| {region} | {row['role']} | {row['chips']} | {row['places']} | {row[score]:.3f} | "
        f"{row['low']:.3f} to {row['high']:.3f} |"
        for region, row in report.table.iterrows()
    ]


def _code(name: str, model: SegmentationModel) -> list[str]:
    """Write the lines that build the model again and load the adapter."""
    backbone, facts = model.plain_backbone, model.built_for
    published, data = backbone.card.weights, facts.get("data")
    given: dict[str, object] = {}
    if "sha256" not in backbone.provenance:
        seed = backbone.provenance["weights"].rpartition(" ")[2]
        given |= {"weights": None, "seed": int(seed) if seed.isdigit() else 0}
    elif not (published and backbone.provenance["sha256"].startswith(published.sha256 or "-")):
        given["weights"] = Path(backbone.provenance["weights"]).name
    if backbone.trained_grid:
        given["img_size"] = backbone.trained_grid * backbone.patch_size
    if backbone.layers_given:
        given["layers"] = list(backbone.layers)
    if backbone.gsd is not None:
        given["gsd"] = backbone.gsd
    head = {"decoder": model.decoder_name, "normalise": facts.get("normalise", "pretraining")}
    head |= {"pad": True} if model.pad else {}
    if backbone.card.takes_time or backbone.card.takes_location:
        head["metadata"] = list(model.metadata)
    head |= model.decoder_options
    bands, load = list(model.bands), "data = ...  # your data, with the bands and classes above"
    if data and data.name in LOADERS:
        load = _call(
            "data = gp.load_data", repr(data.name), bands=bands, size=facts["size"],
            train_regions=facts["regions"], holdout_regions=facts["holdout"],
        )  # fmt: skip
    return [
        "import geopeft_nb as gp",
        "",
        load,
        _call("backbone = gp.load_backbone", repr(backbone.card.name), bands=bands, **given),
        _call("model = gp.build_model", "backbone, data", **head),
        _call("gp.load_adapter", f"model, {name!r}"),
    ]


def _call(function: str, first: str, **options: object) -> str:
    return f"{function}({', '.join([first, *(f'{k}={v!r}' for k, v in options.items())])})"
