"""What goes into a model: pixels in its own scale, and when and where they were taken."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.datasets.base import ChipDataset, Sample
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError, check_name, check_names

#: Kind of metadata -> its key in a sample.
METADATA = {"time": "temporal", "location": "location"}


def choose_scaling(
    backbone: Backbone, data: GeoData, normalise: str | None
) -> tuple[str, Tensor, Tensor]:
    """Choose how pixels are scaled; see `build_model`.

    Returns:
        The name of the normalisation, and offset and divisor per band, each (C,).

    Raises:
        ValueError: An unknown name, or a scaling that the backbone or the data rule out.
    """
    card, reflectance = backbone.card, data.card.reflectance and not backbone.others
    normalise = normalise or ("pretraining" if reflectance else "dataset")
    check_name("normalisation", normalise, ("pretraining", "dataset"))
    if normalise == "pretraining" and reflectance:
        return normalise, *backbone.scaling()
    if normalise == "dataset" and card.scheme != "inside":
        return normalise, *card.scale_by(*data.statistics)
    raise _unscaled(backbone, data, normalise)


def _unscaled(backbone: Backbone, data: GeoData, normalise: str) -> GeopeftError:
    """Make the error for a scaling that the backbone or the data rule out."""
    return GeopeftError(
        f"{backbone.card.name} scales reflectance by itself: use normalise='pretraining', or "
        "another backbone if the data are no reflectance."
        if normalise == "dataset"
        else "normalise='pretraining' scales reflectance 0-1 of bands with a wavelength, and "
        f"{', '.join(backbone.others) or data.card.name} has none. Use normalise='dataset'."
    )


def choose_metadata(
    backbone: Backbone, data: GeoData, wanted: bool | Sequence[str] | None
) -> tuple[str, ...]:
    """Choose which metadata a model uses; see `build_model`.

    Returns:
        What the backbone takes of ``"time"`` and ``"location"``, or nothing.

    Raises:
        ValueError: The backbone takes none, or not the kind, that is insisted on.
    """
    takes = tuple(kind for kind in METADATA if getattr(backbone.card, f"takes_{kind}"))
    if wanted is None:
        wanted = all(not first_lacking(p, kind) for kind in takes for p in data.parts.values())
    elif wanted is True and not takes:
        raise GeopeftError(f"{backbone.card.name} takes no metadata: leave metadata=True out.")
    chosen = wanted if not isinstance(wanted, bool) else takes if wanted else ()
    check_names(f"metadata of {backbone.card.name}", chosen, takes)
    return tuple(kind for kind in takes if kind in chosen)


def first_lacking(part: ChipDataset, kind: str) -> str | None:
    """Return the name of a chip of which a kind of metadata is not known, or None.

    What chips state is taken at its word. Of those that state nothing only the first is read, since
    the files of a data set are alike: to read them all would take long.
    """
    for index, chip in enumerate(part.chips):
        states = {"time": chip.date, "location": chip.location or (chip.crs and chip.bounds)}
        if not states[kind]:
            return None if METADATA[kind] in part[index] else chip.name
    return None


def collate(samples: list[Sample]) -> dict[str, Any]:
    """Make a batch of samples: image, target, name and what the model may want to know of them."""
    key = "mask" if "mask" in samples[0] else "label"
    image, target = (torch.stack([sample[name] for sample in samples]) for name in ("image", key))
    return {
        "image": image, "target": target, "name": [sample["name"] for sample in samples],
        **stack_metadata(samples),
    }  # fmt: skip


def stack_metadata(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Return `temporal` (B, T, 2) and `location` (B, 2), each only if all samples have it."""
    return {
        key: torch.stack([sample[key] for sample in samples])
        for key in METADATA.values()
        if all(key in sample for sample in samples)
    }
