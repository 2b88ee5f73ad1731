"""What a step keeps is known before it runs: planned and measured bytes are the same."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.decoders.one_map import ClassificationHead
from geopeft_nb.memory import plan as planning
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.memory.plan import COLUMNS, MemoryPlan
from geopeft_nb.models import SegmentationModel
from geopeft_nb.pictures.show import in_bytes
from geopeft_nb.tasks import TASKS

FLOAT = 4  # bytes
#: Small instances of the families of transformers, by the card that they take the place of.
TRANSFORMERS = ("prithvi_eo_v1_100", "clay_v1_base", "satmae_base")
DECODERS = ("linear", "unet", "upernet")
CONVOLUTIONAL = ("linear_probe", "bitfit", "full")

pytestmark = pytest.mark.filterwarnings("ignore:.* was told pixels:RuntimeWarning")


@pytest.fixture(autouse=True)
def small_cards(shrink: Callable) -> None:
    shrink(*TRANSFORMERS, "galileo_nano", "prithvi_eo_v2_tiny_tl", depth=4, img_size=64)


@pytest.fixture(scope="module")
def data() -> GeoData:
    return gp.load_data("scenes")


def build(
    data: GeoData, name: str = "geopeft_tiny", method: str = "lora", decoder: str = "linear",
    **options: object,
) -> SegmentationModel:  # fmt: skip
    backbone = gp.load_backbone(name, None, bands=data.bands)
    model = gp.build_model(backbone, data, decoder=decoder, pad=True, metadata=False)
    return gp.attach(model, method, **options)


def by_hand(model: SegmentationModel, batch_size: int, height: int, width: int) -> dict[str, int]:
    """Measure a real step without any of what plans are made with."""
    loss = TASKS[model.task].loss
    image = torch.rand(batch_size, len(model.bands), height, width)
    target = torch.zeros(batch_size, height, width, dtype=torch.int64)
    model.train()
    return training_bytes(model, lambda: loss(model(image), target, -1))


def check(model: SegmentationModel, batch_size: int, height: int, width: int) -> None:
    plan = gp.memory_plan(model, batch_size, (height, width))
    found = by_hand(model, batch_size, height, width)
    # Shapes decide what is kept, so there is nothing to be off by.
    assert {name: getattr(plan, name) for name in found} == found
    assert plan.total <= plan.peak


@pytest.mark.parametrize("method", gp.list_methods().index)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_plan_of_a_transformer_is_what_a_real_step_keeps(
    data: GeoData, name: str, method: str
) -> None:
    # All decoders at both sizes, and networks at their full width: tests/benchmarks/memory_plan.py.
    check(build(data, name, method, "linear"), 2, 64, 64)
    check(build(data, name, method, "unet"), 3, 48, 32)
    check(build(data, name, method, "upernet"), 2, 64, 64)


@pytest.mark.parametrize("method", CONVOLUTIONAL)
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_plan_of_a_convolutional_network_is_what_a_real_step_keeps(
    data: GeoData, decoder: str, method: str
) -> None:
    model = build(data, "decur_resnet50", method, decoder)
    check(model, 2, 64, 64)
    check(model, 3, 32, 96)


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("prithvi_eo_v1_100", "lora", {"preset": "late"}),
        ("prithvi_eo_v1_100", "lora", {"lora_dropout": 0.1}),
        ("prithvi_eo_v1_100", "vpt", {"deep": False}),
        ("prithvi_eo_v1_100", "adapter", {"kind": "serial"}),
        ("galileo_nano", "full", {}),
        ("unet", "full", {}),
    ],
)
def test_options_of_a_method_and_other_networks_are_planned_too(
    data: GeoData, name: str, method: str, options: dict[str, object]
) -> None:
    check(build(data, name, method, "linear" if name == "unet" else "fcn", **options), 2, 64, 64)


@pytest.mark.parametrize("name", ["prithvi_eo_v2_tiny_tl", "clay_v1_base", "galileo_nano"])
def test_day_and_place_are_part_of_the_plan(data: GeoData, name: str) -> None:
    model = build(data, name, "full")
    without = gp.memory_plan(model, 2)
    model.metadata = ("time", "location")
    planned, measured = gp.memory_plan(model, 2), gp.measure_memory(model, 2, device="cpu")
    assert planned.table.equals(measured.table)
    # Clay's codes are computed and need nothing; the others learn a scale or have a token more.
    assert (planned.activations > without.activations) == (name != "clay_v1_base")


@pytest.mark.parametrize(
    ("method", "decoder"),
    [
        ("full", "upernet"), ("lora", "linear"), ("dora", "unet"), ("vit_adapter", "upernet"),
        ("linear_probe", "unet"),
    ],
)  # fmt: skip
def test_plan_and_measurement_agree_part_by_part(data: GeoData, method: str, decoder: str) -> None:
    model = build(data, "prithvi_eo_v1_100", method, decoder)
    planned = gp.memory_plan(model, 2, 64)
    measured = gp.measure_memory(model, 2, 64, device="cpu")
    assert planned.table.equals(measured.table)
    assert planned.peak == measured.peak
    assert "planned" in planned.title and "measured" in measured.title


@pytest.mark.parametrize(("method", "decoder"), [("full", "linear"), ("lora", "upernet")])
def test_half_precision_is_planned_as_it_is_computed(
    data: GeoData, method: str, decoder: str
) -> None:
    model = build(data, "prithvi_eo_v1_100", method, decoder)
    planned = gp.memory_plan(model, 2, 64, "bf16")
    measured = gp.measure_memory(model, 2, 64, "bf16", device="cpu")
    # Batch norms keep their few statistics in another precision than torch's own plan says.
    assert planned.activations == pytest.approx(measured.activations, rel=0.002)
    assert gp.memory_plan(model, 2, 64, "fp16").activations == planned.activations
    # In larger batches the copies of the weights in half precision do not count for much.
    full, half = (gp.memory_plan(model, 32, 64, precision) for precision in ("fp32", "bf16"))
    assert 0.5 * full.activations < half.activations < 0.9 * full.activations
    same = ["weights", "gradients", "optimiser"]
    assert half.table[same].sum().equals(full.table[same].sum())


def test_rows_are_the_parts_in_their_order_and_add_up(data: GeoData) -> None:
    plan = gp.memory_plan(build(data, "prithvi_eo_v1_100", "full", "unet"), 2, 64)
    blocks = [f"block {number}" for number in range(1, 5)]
    assert list(plan.table.index) == [
        "patch embedding", *blocks, "final norm", "neck", "decoder", "loss"
    ]  # fmt: skip
    assert plan.table[list(COLUMNS)].sum(axis=1).equals(plan.table["total"])
    assert plan.table.loc[blocks[1:]].nunique().eq(1).all()  # blocks are alike
    assert plan.total == sum(getattr(plan, name) for name in COLUMNS)
    block = plan.table.loc["block 2"]
    d, tokens, batch = 64, 1 + 4 * 4, 2
    assert block["weights"] == (12 * d * d + 13 * d) * FLOAT
    assert block["optimiser"] == 2 * block["gradients"] == 2 * block["weights"]
    # Each token: input and norm of both halves (4 d), q, k, v and mixed values (4 d), both sides of
    # the GELU (8 d); mean and deviation of two norms (4) and the softmax's sum of each head (4).
    # The block's input is kept by the block before; its output by this one, which makes up for it.
    assert block["activations"] == batch * tokens * (16 * d + 4 + 4) * FLOAT


def test_a_vit_adapter_and_stages_have_rows_of_their_own(data: GeoData) -> None:
    adapted = gp.memory_plan(build(data, "prithvi_eo_v1_100", "vit_adapter"), 2, 64).table
    assert adapted.loc["block 1", "gradients"] == 0 < adapted.loc["block 1", "activations"]
    assert (adapted.loc["adapter", ["gradients", "activations"]] > 0).all()
    stages = gp.memory_plan(build(data, "decur_resnet50", "full", "unet"), 2, 64).table
    assert list(stages.index) == ["stem", *[f"stage {i}" for i in range(1, 5)], "decoder", "loss"]
    assert (stages.loc["stem":"decoder", "activations"] > 0).all()


def test_adapters_belong_to_their_blocks(data: GeoData) -> None:
    table = gp.memory_plan(build(data, "prithvi_eo_v1_100", "vpt", prompts=5), 2, 64).table
    assert (table.loc["block 1":"block 4", "gradients"] == 5 * 64 * FLOAT).all()
    late = gp.memory_plan(build(data, "prithvi_eo_v1_100", "lora", preset="late"), 2, 64).table
    trained = late.loc["block 1":"block 4", ["gradients", "activations"]]
    assert (trained.iloc[:3] == 0).all(axis=None) and (trained.iloc[3] > 0).all()


def test_the_size_is_that_of_the_data_unless_given(data: GeoData) -> None:
    model = build(data, "geopeft_tiny")
    titles = [gp.memory_plan(model, size=size).title for size in (None, 32, (32, 48))]
    sides = ((data.size, data.size), (32, 32), (32, 48))
    for title, (height, width) in zip(titles, sides, strict=True):
        assert title.endswith(f"planned: 8 × {height} × {width} px, fp32")


@pytest.mark.parametrize("kind", [None, "bf16", "8bit"])
def test_a_network_without_memory_is_planned_like_a_real_one(
    data: GeoData, kind: str | None
) -> None:
    with torch.device("meta"):
        nowhere = build(data, "prithvi_eo_v1_100", "lora", "unet")
    plan = gp.memory_plan(nowhere, 2, 64, frugal=kind)
    real = gp.memory_plan(build(data, "prithvi_eo_v1_100", "lora", "unet"), 2, 64, frugal=kind)
    assert plan.table.equals(real.table)
    assert (plan.weights < gp.memory_plan(nowhere, 2, 64).weights) == (kind is not None)
    assert all(tensor.is_meta and tensor.dtype is torch.float32 for tensor in nowhere.parameters())
    with pytest.raises(ValueError, match=r"meta device cannot run\. Use memory_plan"):
        gp.measure_memory(nowhere, 2, 64, device="cpu")


def test_a_large_network_is_planned_without_its_weights(data: GeoData) -> None:
    with torch.device("meta"):
        model = build(data, "prithvi_eo_v2_300", "lora", "upernet")
    plans, seconds = [], []
    for batch in (2, 8):
        start = time.process_time()
        plans.append(gp.memory_plan(model, batch, 224))
        seconds.append(time.process_time() - start)
    assert seconds[1] < 3 * seconds[0], "eight chips are planned as fast as two: nothing is run"
    assert 300e6 * FLOAT < plans[1].weights < 360e6 * FLOAT


@pytest.mark.parametrize("run", [gp.memory_plan, gp.measure_memory])
def test_planning_and_measuring_leave_everything_as_it_was(data: GeoData, run: object) -> None:
    model = build(data, "decur_resnet50", "full", "unet")
    model.eval()
    model.decoder.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    assert callable(run)
    run(model, 2, 64, device="cpu")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
    assert all(type(p) is nn.Parameter for p in model.parameters())
    hooks = [hook for m in model.modules() for hook in (*m._forward_hooks, *m._forward_pre_hooks)]
    assert not hooks


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_other_tasks_are_planned_with_their_own_targets(data: GeoData, task: str) -> None:
    model = build(data, "prithvi_eo_v1_100", "full")
    model.task = task
    if task != "regression":
        model.decoder = ClassificationHead(model.backbone.channels, 2)
    planned, measured = gp.memory_plan(model, 2), gp.measure_memory(model, 2, device="cpu")
    assert planned.table.equals(measured.table) and planned.peak == measured.peak
    # Kept are: the logarithm of the softmax and labels; logits and labels; errors and what counts.
    values = {"classification": 2 * 2 * FLOAT + 2 * 8 + 4, "multilabel": 2 * 2 * 2 * FLOAT}
    values["regression"] = 2 * 2 * 64 * 64 * (FLOAT + 1) + FLOAT
    assert planned.table.loc["loss", "activations"] == pytest.approx(values[task], abs=32)


@pytest.mark.parametrize("method", ["full", "vpt", "adapter", "vit_adapter"])
def test_recipes_change_the_plan_as_they_change_the_step(data: GeoData, method: str) -> None:
    model = build(data, "prithvi_eo_v1_100", method, "unet")
    plain = gp.memory_plan(model, 2, 64)
    planned = gp.memory_plan(model, 2, 64, frugal="checkpoint")
    measured = gp.measure_memory(model, 2, 64, frugal="checkpoint", device="cpu")
    assert planned.table.equals(measured.table) and planned.peak == measured.peak
    assert planned.title.endswith(", checkpoint")
    blocks = [plan.table.loc["block 1":"block 4", "activations"].sum() for plan in (planned, plain)]
    assert 0 < blocks[0] < blocks[1] / 5
    assert gp.memory_plan(model, 2, 64).table.equals(plain.table)
    with pytest.raises(ValueError, match="Unknown recipe"):
        gp.memory_plan(model, frugal="nothing")


@pytest.mark.parametrize("method", ["full", "lora", "vit_adapter"])
def test_the_peak_is_what_the_profiler_counts_but_for_workspace(data: GeoData, method: str) -> None:
    # A linear decoder: convolutions take workspace inside, which no plan of tensors can see.
    model = build(data, "geopeft_tiny", method)
    plan = gp.memory_plan(model, 4, 64)
    model.train()
    image, target = torch.rand(4, 6, 64, 64), torch.zeros(4, 64, 64, dtype=torch.int64)
    loss = TASKS["segmentation"].loss
    with torch.profiler.profile(profile_memory=True) as profile:
        copies = image.clone(), target.clone(), image.clone(), target.clone()
        loss(model(copies[0]), copies[1], -1).backward()
    now = most = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    # The second step is planned, in whose forward pass the gradients of the first are alive.
    low, high = (plan.weights + plan.optimiser + most + extra for extra in (0, plan.gradients))
    assert 0.93 * low < plan.peak < 1.02 * high


def test_adamw_needs_room_for_all_weights_at_once_on_a_gpu(data: GeoData) -> None:
    model = build(data, "prithvi_eo_v1_100", "full")
    cpu, gpu = (gp.memory_plan(model, 1, 16, device=device) for device in ("cpu", "cuda"))
    assert gpu.peak == gpu.weights + 2 * gpu.gradients + gpu.optimiser
    assert cpu.table.equals(gpu.table) and cpu.peak < gpu.peak


def test_a_plan_shows_itself(data: GeoData) -> None:
    plan = gp.memory_plan(build(data, "prithvi_eo_v1_100", "full", "unet"), 2, 64)
    assert plan.fits(plan.peak) and not plan.fits(plan.peak - 1)
    page = plan._repr_html_()
    for text in ("block 4", "decoder", plan.title, "Fits on Binder, T4", in_bytes(plan.total)):
        assert text in page
    assert in_bytes(plan.peak) in repr(plan)
    assert plan.plot().axes[1].get_xlabel() == "memory (MiB)"
    huge = MemoryPlan(plan.table * 100_000, plan.peak * 100_000, "huge")
    assert "Fits on none of" in huge._repr_html_()
    assert huge.plot().axes[1].get_xlabel() == "memory (GiB)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf61"}, "Unknown precision 'bf61'. Did you mean 'bf16'"),
        ({"device": "tpu"}, "Unknown device 'tpu'"),
        ({"size": (64, 64, 64)}, "size takes whole numbers from 1 to 16,384 or 2 whole numbers"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    data: GeoData, options: dict[str, object], message: str
) -> None:
    model = build(data, "geopeft_tiny")
    for run in (gp.memory_plan, gp.measure_memory):
        with pytest.raises(ValueError, match=message):
            run(model, **options)


def test_a_model_without_a_method_is_refused(data: GeoData) -> None:
    backbone = gp.load_backbone("geopeft_tiny", None, bands=data.bands)
    model = gp.build_model(backbone, data)
    with pytest.raises(ValueError, match="model takes SegmentationModel"):
        gp.memory_plan(backbone)
    for unfit in (model, gp.merge(gp.attach(model, "lora"))):
        with pytest.raises(ValueError, match="Nothing that trains is attached"):
            gp.memory_plan(unfit)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("backbone", "method", "decoder"),
    [
        ("prithvi_eo_v1_100", "full", "linear"),
        ("prithvi_eo_v1_100", "lora", "upernet"),
        ("prithvi_eo_v1_100", "vit_adapter", "unet"),
        ("clay_v1_base", "lora", "unet"),
        ("satmae_base", "adapter", "upernet"),
        ("decur_resnet50", "linear_probe", "upernet"),
        ("decur_resnet50", "full", "unet"),
    ],
)
def test_a_plan_keeps_what_the_operators_of_a_gpu_would(
    data: GeoData, monkeypatch: pytest.MonkeyPatch, backbone: str, method: str, decoder: str,
    precision: str,
) -> None:  # fmt: skip
    model = build(data, backbone, method, decoder)
    planned = forward_of(model, precision, monkeypatch)
    pretend_a_gpu(precision, monkeypatch)
    kept, most = forward_of(model, precision, monkeypatch)
    # Attention pads a small tensor there, and softmax keeps more under autocast.
    assert planned[0] == pytest.approx(kept, rel=0.03)
    assert planned[1] == pytest.approx(most, rel=0.03)


def forward_of(
    model: SegmentationModel, precision: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, int]:
    """Return what a planned forward pass keeps, and the most that it takes at once."""
    seen: list[tuple[int, int]] = []

    class Watched(planning.Step):
        def forward(self) -> None:
            try:
                super().forward()
            finally:
                seen.append((sum(self.kept.values()), self.forward_most))

    def backward(*args: object) -> None:
        raise Reached  # autograd has no thread for a device that is not there

    with monkeypatch.context() as patch, pytest.raises(Reached):
        patch.setattr(planning, "Step", Watched)
        patch.setattr(torch.Tensor, "backward", backward)
        gp.memory_plan(model, 4, 224, precision)
    return seen[0]


class Reached(Exception):
    """The end of the forward pass."""


def pretend_a_gpu(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tensors without numbers on a GPU, with its rules of autocast and its attention."""
    fake = planning.fake_like

    def on_gpu(mode: Any, tensor: Tensor) -> Tensor:
        tensor = fake(mode, tensor)
        with mode:
            return torch.empty_like(tensor, device="cuda", requires_grad=tensor.requires_grad)

    def attention(*given: Any, **options: object) -> Tensor:
        qkv = given[:3]
        # Without a GPU the dispatcher would take the slow kernel, which keeps the weights.
        if precision == "fp32":
            return aten._scaled_dot_product_efficient_attention(*qkv, None, True)[0]
        half = (part.to(torch.bfloat16) for part in qkv)
        return aten._scaled_dot_product_flash_attention(*half)[0]

    aten = torch.ops.aten
    monkeypatch.setattr(planning, "fake_like", on_gpu)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    common = "torch.cuda.amp.common.amp_definitely_not_available"
    monkeypatch.setattr(common, lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **options: True)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["full", "lora", "vit_adapter"])
def test_on_a_gpu_the_planned_peak_is_near_the_allocators(method: str, precision: str) -> None:
    data = gp.load_data("sandbox")  # needs no library that reads rasters
    model = gp.attach(
        gp.build_model(
            gp.load_backbone("prithvi_eo_v2_300", None, bands=data.bands), data, "upernet", pad=True
        ),
        method,
    )
    planned = gp.memory_plan(model, 8, 224, precision, device="cuda")
    measured = gp.measure_memory(model, 8, 224, precision, device="cuda")
    assert planned.peak == pytest.approx(measured.peak, rel=0.15)
    assert planned.activations == pytest.approx(measured.activations, rel=0.1)
    assert next(model.parameters()).device.type == "cpu"
