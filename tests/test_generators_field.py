"""The generators that labs use: state dicts laid out as published give what the layers, one by one, give."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neurogym_v import weights
from neurogym_v.generators.biggan import BigGAN
from neurogym_v.generators.dcgan import DCGAN
from neurogym_v.generators.deepsim import CODES, SCALE, DeePSiM
from neurogym_v.generators.layouts import Added, read_checkpoint
from neurogym_v.weights import WeightsError

State = dict[str, Tensor]
HERE = Path("checkpoint.pt")


def random_state(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    """Weights that keep the size of what passes through, small biases; the last layer makes images of middling contrast."""
    rng = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        size = 0.1
        if len(shape) > 1:
            transposed = "deconv" in name or "tconv" in name or ("conv" in name and "_1" in name and shape[2:] == (3, 3))
            inputs = shape[0] if transposed else shape[1]
            size = (2 / (inputs * {1: 1, 2: 4, 3: 9, 4: 4}[(*shape, 1)[2]])) ** 0.5
        state[name] = size * torch.randn(shape, generator=rng)
    last = [name for name in shapes if name.endswith("weight")][-1]
    state[last] *= 0.3 if "conv1_1" in last else 5
    return state


# --- DeePSiM: the layers as the two ports to PyTorch name them ---

XDREAM_DECODER = {
    "tconv5_0": (256, 256, 4), "tconv5_1": (256, 512, 3), "tconv4_0": (512, 256, 4), "tconv4_1": (256, 256, 3),
    "tconv3_0": (256, 128, 4), "tconv3_1": (128, 128, 3), "tconv2": (128, 64, 4), "tconv1": (64, 32, 4), "tconv0": (32, 3, 4),
}  # fmt: skip
WANG = {
    "fc7": "defc7", "fc6": "defc6", "fc5": "defc5", "tconv5_0": "deconv5", "tconv5_1": "conv5_1", "tconv4_0": "deconv4",
    "tconv4_1": "conv4_1", "tconv3_0": "deconv3", "tconv3_1": "conv3_1", "tconv2": "deconv2", "tconv1": "deconv1",
    "tconv0": "deconv0", "conv6": "Rconv6", "conv7": "Rconv7", "conv8": "Rconv8",
}  # fmt: skip


def decoder_shapes(first: int, *, biases: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (before, after, kernel) in XDREAM_DECODER.items():
        shapes[f"{name}.weight"] = (first if name == "tconv5_0" else before, after, kernel, kernel)
        shapes |= {f"{name}.bias": (after,)} if biases else {}
    return shapes


def full_shapes(inputs: int, *, biases: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, before in (("fc7", inputs), ("fc6", 4096), ("fc5", 4096)):
        shapes |= {f"{name}.weight": (4096, before), f"{name}.bias": (4096,)}
    return shapes | decoder_shapes(256, biases=biases)


POOL5 = {"conv6.weight": (512, 256, 3, 3), "conv7.weight": (512, 512, 3, 3), "conv8.weight": (512, 512, 3, 3)}
POOL5 |= {f"conv{i}.bias": (512,) for i in (6, 7, 8)}
NORM1 = {
    "conv6.weight": (128, 96, 3, 3), "conv6.bias": (128,), "conv7.weight": (128, 128, 3, 3), "conv7.bias": (128,),
    "conv8.weight": (128, 128, 3, 3), "conv8.bias": (128,), "tconv4_0.weight": (128, 128, 4, 4),
    "conv4_1.weight": (128, 128, 3, 3), "tconv3_0.weight": (128, 64, 4, 4), "conv3_1.weight": (64, 64, 3, 3),
    "tconv2_0.weight": (64, 32, 4, 4), "conv2_1.weight": (32, 32, 3, 3), "tconv1_0.weight": (32, 16, 4, 4),
    "conv1_1.weight": (3, 16, 3, 3),
}  # fmt: skip
CONV34 = {
    "conv6.weight": (384, 384, 3, 3), "conv6.bias": (384,), "conv7.weight": (512, 384, 3, 3), "conv7.bias": (512,),
    "conv8.weight": (512, 512, 2, 2), "conv8.bias": (512,), "tconv5_0.weight": (512, 256, 4, 4),
    "tconv5_1.weight": (256, 256, 3, 3), "tconv4_0.weight": (256, 128, 4, 4), "tconv4_1.weight": (128, 128, 3, 3),
    "tconv3_0.weight": (128, 128, 4, 4), "tconv3_1.weight": (128, 128, 3, 3), "tconv2_0.weight": (128, 64, 4, 4),
    "conv2_1.weight": (32, 64, 3, 3), "tconv1_0.weight": (32, 16, 4, 4), "conv1_1.weight": (3, 16, 3, 3),
}  # fmt: skip


def published(variant: str) -> State:
    """fc6, fc7, norm and conv as in XDream's files (no biases in the decoder), fc8 and pool5 as in Wang's."""
    if variant in ("fc6", "fc7"):
        return random_state(full_shapes(4096, biases=False))
    if variant == "norm1":
        return random_state(NORM1)
    if variant == "norm2":
        first = {"conv6.weight": (256, 256, 3, 3), "conv6.bias": (256,), "conv7.weight": (128, 256, 3, 3)}
        return random_state({name: first.get(name, shape) for name, shape in NORM1.items()})
    if variant.startswith("conv"):
        return random_state(CONV34)
    shapes = full_shapes(1000, biases=True) if variant == "fc8" else POOL5 | decoder_shapes(512, biases=True)
    state = random_state(shapes)
    return {f"{WANG[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor for name, tensor in state.items()}


def by_layers(variant: str, state: State, code: Tensor) -> Tensor:
    """(n, 3, s, s) in [0, 1] of codes, by what the published descriptions say, in the order they say it."""
    theirs = {ours: name for name, ours in WANG.items()} if variant in ("fc8", "pool5") else {}
    w = {f"{theirs.get(n.rpartition('.')[0], n.rpartition('.')[0])}.{n.rpartition('.')[2]}": t for n, t in state.items()}
    names = [name.removesuffix(".weight") for name in w if name.endswith(".weight")]
    names = sorted(
        names, key=lambda n: n.startswith(("tconv", "conv5", "conv4_", "conv3_", "conv2_", "conv1_"))
    )  # encoder first
    x = code if variant.startswith("fc") else code.reshape(-1, *CODES[variant])
    for name in names:
        weight, bias = w[f"{name}.weight"], w.get(f"{name}.bias")
        if name.startswith("fc"):
            x = F.linear(x, weight, bias)
        elif name.startswith("tconv"):
            x = x.reshape(-1, 256, 4, 4) if x.ndim == 2 else x
            x = F.conv_transpose2d(x, weight, bias, stride=1 if name.endswith("_1") else 2, padding=1)
        elif name == "conv6":
            stride, padding = {"norm1": (2, 2), "norm2": (1, 2), "pool5": (1, 1)}.get(variant, (1, 0))
            x = F.conv2d(x, weight, bias, stride=stride, padding=padding)
        elif name in ("conv7", "conv8"):
            x = F.conv2d(x, weight, bias, padding={"norm1": 1, "norm2": 1, "pool5": int(name == "conv7")}.get(variant, 0))
        else:
            x = F.conv2d(x, weight, bias, padding=1)
        if name not in ("tconv0", "conv1_1") and not (name == "tconv1_0" and variant.startswith("norm")):
            x = torch.where(x > 0, x, 0.3 * x)
    if variant.startswith(("norm", "conv")):
        x = torch.tanh(x) * 255
    blue, green, red = x.unbind(1)
    return torch.stack([(red + 123) / 255, (green + 117) / 255, (blue + 104) / 255], dim=1).clip(0, 1)


@pytest.fixture(scope="module")
def fc6() -> tuple[State, DeePSiM]:
    state = published("fc6")
    return state, DeePSiM.build(HERE, DeePSiM.convert(HERE, state, "fc6"), "fc6")


@pytest.mark.parametrize("variant", ["fc6", "fc8", "pool5", "conv3", "norm1", "norm2"])
def test_deepsim_is_its_layers(variant: str, fc6: tuple[State, DeePSiM]) -> None:
    if variant == "fc6":
        state, model = fc6
    else:
        state = published(variant)
        model = DeePSiM.build(HERE, DeePSiM.convert(HERE, state, variant), variant)
    assert model.latent_dim == np.prod(CODES[variant])
    latents = model.sample(2, np.random.default_rng(0))
    images, expected = model(latents), by_layers(variant, state, SCALE[variant] * latents)
    assert images.shape == (2, 3, model.image_size, model.image_size) == (2, 3, *[240 if "norm" in variant else 256] * 2)
    assert float(expected.std()) > 0.02  # it tests something
    torch.testing.assert_close(images, expected, atol=2e-5, rtol=0)


def test_both_ports_of_deepsim_are_read_alike(fc6: tuple[State, DeePSiM]) -> None:
    state, model = fc6
    wang = {f"G.{WANG[n.rpartition('.')[0]]}.{n.rpartition('.')[2]}": t for n, t in state.items()}
    wang |= {f"{n.removesuffix('weight')}bias": torch.zeros(t.shape[1]) for n, t in wang.items() if t.ndim == 4}
    early = {name.replace("G.", "").replace(".", ".1."): tensor for name, tensor in wang.items()}
    for other in (wang, early):
        converted = DeePSiM.convert(HERE, other, "fc6")
        assert converted.keys() == model.net.state_dict().keys()
        assert all(torch.equal(tensor, model.net.state_dict()[name]) for name, tensor in converted.items())


def test_the_prior_of_fc6_is_the_published_start() -> None:
    model = DeePSiM("norm1")
    assert (model.latent_dim, model.scale) == (96 * 27 * 27, SCALE["norm1"])
    codes = SCALE["fc6"] * np.random.default_rng(0).standard_normal((100, 4096))
    assert abs(np.linalg.norm(codes, axis=1).mean() - 3 * 64) < 1  # CMA-ES with a first step of 3


# --- DCGAN ---


def dcgan_state(widths: tuple[int, ...] = (10, 16, 8, 3), *, prefix: str = "main.", biases: bool = False) -> State:
    """As torch.nn.Sequential numbers convolution, normalisation, rectifier."""
    rng = torch.Generator().manual_seed(2)
    state: State = {}
    for i, (before, after) in enumerate(pairwise(widths)):
        state[f"{prefix}{3 * i}.weight"] = torch.randn(before, after, 4, 4, generator=rng) * (2 / (4 * before)) ** 0.5
        state |= {f"{prefix}{3 * i}.bias": torch.randn(after, generator=rng)} if biases else {}
        if i < len(widths) - 2:
            norm = f"{prefix}{3 * i + 1}"
            state |= {f"{norm}.{part}": 0.2 * torch.randn(after, generator=rng) for part in ("weight", "bias", "running_mean")}
            state[f"{norm}.weight"] += 1
            state |= {
                f"{norm}.running_var": torch.rand(after, generator=rng) + 0.5,
                f"{norm}.num_batches_tracked": torch.tensor(9),
            }
    return state


def dcgan_by_layers(state: State, latents: Tensor) -> Tensor:
    x, names = latents[:, :, None, None], [name for name in state if state[name].ndim == 4]
    for i, name in enumerate(names):
        x = F.conv_transpose2d(
            x, state[name], state.get(name.replace("weight", "bias")), **({} if i == 0 else {"stride": 2, "padding": 1})
        )
        if i < len(names) - 1:
            prefix, _, number = name.removesuffix(".weight").rpartition(".")
            norm = ".".join(filter(None, [prefix, str(int(number) + 1)]))
            mean, var, gain, offset = (state[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
            x = F.relu(F.batch_norm(x, mean, var, gain, offset))
    return ((torch.tanh(x) + 1) / 2).repeat(1, 3 // x.shape[1], 1, 1)


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("prefix", ["main.", "", "net.layers."])
@pytest.mark.parametrize("widths", [(10, 16, 8, 3), (7, 8, 8, 8, 8, 1), (3, 3, 3, 3), (100, 64, 32, 16, 8, 4, 3)])
def test_dcgan_is_its_layers(widths: tuple[int, ...], prefix: str, biases: bool) -> None:
    state = dcgan_state(widths, prefix=prefix, biases=biases)
    shuffled = {name: state[name] for name in sorted(state)}  # as safetensors files are: main.12 before main.3
    model = DCGAN.build(HERE, DCGAN.convert(HERE, shuffled, ""), "")
    latents = model.sample(2, np.random.default_rng(0))
    images = model(latents)
    assert images.shape == (2, 3, 4 * 2 ** (len(widths) - 2), model.image_size)
    torch.testing.assert_close(images, dcgan_by_layers(state, latents), atol=1e-5, rtol=0)


def test_a_dcgan_that_was_published() -> None:
    found = importlib.util.find_spec("gan_face_generate")
    if found is None or not found.submodule_search_locations:
        pytest.skip("gan-face-generate is not installed")
    from gan_face_generate.models import Generator

    state = read_checkpoint(Path(found.submodule_search_locations[0]) / "weights.tar")
    theirs = Generator(0, 3, 100, 64).eval()
    theirs.load_state_dict(state)
    model = DCGAN.build(HERE, DCGAN.convert(HERE, state, ""), "")
    assert (model.latent_dim, model.image_size) == (100, 64)
    latents = model.sample(8, np.random.default_rng(0))
    with torch.no_grad():
        torch.testing.assert_close(model(latents), (theirs(latents[:, :, None, None]) + 1) / 2, atol=1e-5, rtol=0)
    assert float(model(latents).flatten(1).std(dim=0).mean()) > 0.1  # faces, not one face


# --- all of them ---


def biggan_state() -> State:
    """A narrow network; its spectral normalisation was done by whoever made the file."""
    torch.manual_seed(0)
    state = BigGAN("128", width=8).state_dict()
    more = {"weight": torch.zeros(8, 8, 3, 3), "bias": torch.zeros(8)}
    for part, tensor in more.items():
        tensor[:3] = state[f"generator.conv_to_rgb.{part}"]
    return dict(state) | {f"generator.conv_to_rgb.{part}": tensor for part, tensor in more.items()}


SMALL: dict[str, tuple[type[Added], str, Callable[[], State]]] = {
    "deepsim": (DeePSiM, "norm1", lambda: published("norm1")),
    "biggan": (BigGAN, "128", biggan_state),
    "dcgan": (DCGAN, "", dcgan_state),
}


@pytest.fixture(scope="module", params=[*SMALL, "fc6"])
def model(request: pytest.FixtureRequest, fc6: tuple[State, DeePSiM]) -> Added:
    if request.param == "fc6":
        return fc6[1]
    cls, variant, state = SMALL[request.param]
    return cls.build(HERE, cls.convert(HERE, state(), variant), variant)


def test_the_contract_of_generators(model: Added) -> None:
    latents, again = (model.sample(3, np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(latents, again)
    assert latents.dtype == torch.float32
    images = model(latents)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    torch.testing.assert_close(images, torch.cat([model(row[None]) for row in latents]), atol=1e-5, rtol=0)
    assert model(latents[:0]).shape == (0, 3, model.image_size, model.image_size)
    assert model(100 * latents).isfinite().all()
    latents.requires_grad_()
    model(latents).square().mean().backward()
    assert latents.grad is not None
    assert latents.grad.isfinite().all()
    assert (latents.grad != 0).any(dim=1).all()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    moved = copy.deepcopy(model).to("meta")  # a device that every machine has
    assert moved(moved.sample(2, np.random.default_rng(0))).device.type == "meta"


@pytest.mark.parametrize("harm", ["renamed", "missing", "more", "shape", "whole numbers", "nan", "other"])
@pytest.mark.parametrize("name", SMALL)
def test_other_checkpoints_are_refused_in_one_line(name: str, harm: str) -> None:
    cls, variant, make = SMALL[name]
    state = make()
    first = next(name for name in state if state[name].ndim == 4)
    if harm in ("renamed", "missing"):
        tensor = state.pop(first)
        state |= {"begin.weights": tensor} if harm == "renamed" else {}
    elif harm == "more":
        state["more.weight"] = torch.zeros(2, 2)
    elif harm == "shape":
        state[first] = state[first][:, :, :-1]
    elif harm == "whole numbers":
        state[first] = state[first].long()
    elif harm == "nan":
        state[first][0, 0, 0, 0] = torch.nan
    else:
        state = {"layer1.0.conv1.weight": torch.zeros(8, 8, 3, 3), "fc.bias": torch.zeros(10)}
    with pytest.raises(WeightsError, match=r"expected .*found") as error:
        cls.build(HERE, cls.convert(HERE, state, variant), variant)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("harm", ["truncated", "flipped", "kind", "variant", "missing"])
@pytest.mark.parametrize("name", SMALL)
def test_kept_files_that_were_harmed_are_refused(name: str, harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    cls, variant, make = SMALL[name]
    path = weights.place(f"{name}:{variant}" if variant else name)
    if harm != "missing":
        kind = "neuron:other" if harm == "kind" else cls.kind
        card = {"variant": "fc9" if harm == "variant" else variant}
        weights.save(path, cls.convert(HERE, make(), variant), kind=kind, card=card)
    content = bytearray(path.read_bytes() if path.exists() else b"")
    if harm == "truncated":
        path.write_bytes(content[:-100])
    elif harm == "flipped":
        content[-1000] ^= 1
        path.write_bytes(content)
    elif harm == "variant" and name == "dcgan":
        assert cls.load().latent_dim == 10  # users name theirs as they like
        return
    expected = {"truncated": "damaged", "flipped": "SHA-256", "kind": "expected kind", "variant": "expected variant"}
    with pytest.raises(WeightsError, match=expected.get(harm, "neurogym-v weights add")):
        cls.load(variant=variant or None)
