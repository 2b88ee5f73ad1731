"""The package costs nothing until a name is used."""

import re
import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_brings_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import geopeft_nb; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - sys.stdlib_module_names - {'geopeft_nb'}))"
    )
    assert run(code) == "[]"


def test_load_backbone_imports_no_heavy_library() -> None:
    heavy = "timm torchvision lightning transformers peft torchgeo leafmap rasterio".split()
    code = (
        "import geopeft_nb as gp, sys; gp.load_backbone('geopeft_tiny', weights=None); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert run(code) == "[]"


def test_every_public_name_can_be_imported() -> None:
    import geopeft_nb as gp

    for name in gp.__all__:
        assert callable(getattr(gp, name)), name
    with pytest.raises(AttributeError, match="no attribute 'atach'"):
        gp.atach  # noqa: B018 - the access itself is what fails


@pytest.mark.parametrize(
    ("function", "option", "meant"),
    [
        ("fit", "max_epochs", "epochs"),
        ("load_backbone", "pretrained", "weights"),
        ("evaluate", "sead", "seed"),
        ("memory_plan", "bs", "batch_size"),
    ],
)
def test_an_unknown_option_gets_the_right_word(function: str, option: str, meant: str) -> None:
    import geopeft_nb as gp

    message = f"Unknown option of {function} '{option}'. Did you mean '{meant}'"
    with pytest.raises(gp.GeopeftError, match=re.escape(message)):
        getattr(gp, function)(**{option: 1})


def test_bfloat16_convolutions_over_patches_are_right_on_every_cpu() -> None:
    """Six bands in patches of 16 px came out 90 % off on a CPU with AMX (torch 2.15)."""
    code = (
        "import geopeft_nb, torch; torch.manual_seed(0); conv = torch.nn.functional.conv2d; "
        "x, w = (torch.randn(s).bfloat16() for s in ((1, 6, 64, 96), (64, 6, 16, 16))); "
        "exact = conv(x.float(), w.float(), stride=16); "
        "print(float((conv(x, w, stride=16) - exact).abs().max() / exact.abs().max()) < 0.02)"
    )
    assert run(code) == "True"
