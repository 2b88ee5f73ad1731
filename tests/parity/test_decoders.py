"""Decoders and the learned pyramid equal the published implementation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geopeft_nb.decoders.four_maps import LearnedPyramid, UNetDecoder, UperNetDecoder
from geopeft_nb.decoders.one_map import FCNDecoder, LinearDecoder

#: Golden file -> decoder, made from the arguments that the published one was made from.
DECODERS: dict[str, Callable[[dict], nn.Module]] = {
    "linear": lambda k: LinearDecoder(k["embed_dim"], k["num_classes"], k["upsampling_size"]),
    "fcn": lambda k: FCNDecoder(k["embed_dim"], k["channels"], k["num_convs"]),
    "unet": lambda k: UNetDecoder(k["embed_dim"], k["channels"]),
    "upernet": lambda k: UperNetDecoder(k["embed_dim"], k["channels"]),
}


def load(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Load a published state; the layer norm of its FCN sits in a module of its own."""
    module.load_state_dict({key.replace(".ln.", "."): value for key, value in state.items()})
    return module.eval()


def maps(inputs: dict[str, Tensor]) -> list[Tensor]:
    return [inputs[f"f{index}"] for index in range(4)]


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_equal_the_golden_tensors(name: str, golden: Callable, close: Callable) -> None:
    state, inputs, outputs, meta = golden(f"decoder_{name}")
    decoder = load(DECODERS[name](meta["cfg"]["kwargs"]), state)
    with torch.no_grad():
        close(decoder(maps(inputs)), outputs["y"], outputs)


def test_the_pyramid_equals_the_golden_tensors(golden: Callable, close: Callable) -> None:
    state, inputs, outputs, meta = golden("neck_learned_pyramid")
    pyramid = load(LearnedPyramid(meta["cfg"]["kwargs"]["channel_list"][0]), state)
    with torch.no_grad():
        levels = pyramid(maps(inputs))
    assert len(levels) == len(outputs)
    for index, level in enumerate(levels):
        close(level, outputs[f"y/level_{index}"], outputs)
        assert level.shape[1] == pyramid.channels[index]
