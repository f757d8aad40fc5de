"""BigGAN-deep: a state dict laid out as released gives what the layers, one by one, give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neurogym_v.generators.biggan import BigGAN
from neurogym_v.weights import WeightsError

State = dict[str, Tensor]
HERE = Path("checkpoint.pt")

BLOCKS = {
    "128": [
        (16, 16, 0), (16, 16, 1), (16, 16, 0), (16, 8, 1), (8, 8, 0), (8, 4, 1), (4, 4, 0), (4, 2, 1), (2, 2, 0), (2, 1, 1)
    ],
}  # fmt: skip
BLOCKS["256"] = [*BLOCKS["128"][:5], (8, 8, 1), (8, 8, 0), *BLOCKS["128"][5:]]
BLOCKS["512"] = [*BLOCKS["256"], (1, 1, 0), (1, 1, 1)]


def biggan_shapes(variant: str, ch: int) -> dict[str, tuple[int, ...]]:
    """The release: names and shapes, without the factors of spectral normalisation (`*` marks what has them)."""
    shapes: dict[str, tuple[int, ...]] = {"embeddings.weight": (128, 1000)}
    shapes |= {"generator.gen_z.weight*": (4 * 4 * 16 * ch, 256), "generator.gen_z.bias": (4 * 4 * 16 * ch,)}
    index = 0
    for number, (before, after, _) in enumerate(BLOCKS[variant]):
        if number == 8:
            c, at = before * ch, f"generator.layers.{index}"
            parts = {"theta": (c // 8, c), "phi": (c // 8, c), "g": (c // 2, c), "o_conv": (c, c // 2)}
            shapes |= {f"{at}.snconv1x1_{part}.weight*": (*shape, 1, 1) for part, shape in parts.items()}
            shapes[f"{at}.gamma"] = (1,)
            index += 1
        at, wide, middle = f"generator.layers.{index}", before * ch, before * ch // 4
        for i, (inputs, outputs, k) in enumerate(
            [(wide, middle, 1), (middle, middle, 3), (middle, middle, 3), (middle, after * ch, 1)]
        ):
            shapes |= {f"{at}.conv_{i}.weight*": (outputs, inputs, k, k), f"{at}.conv_{i}.bias": (outputs,)}
            shapes |= {f"{at}.bn_{i}.{part}.weight*": (inputs, 256) for part in ("scale", "offset")}
            shapes |= {f"{at}.bn_{i}.running_{part}": (51, inputs) for part in ("means", "vars")}
        index += 1
    shapes |= {f"generator.bn.running_{part}": (51, ch) for part in ("means", "vars")}
    shapes |= {f"generator.bn.{part}": (ch,) for part in ("weight", "bias")}
    return shapes | {"generator.conv_to_rgb.weight*": (ch, ch, 3, 3), "generator.conv_to_rgb.bias": (ch,)}


def biggan_state(variant: str = "128", ch: int = 8) -> State:
    rng = torch.Generator().manual_seed(1)
    state: State = {}
    for name, shape in biggan_shapes(variant, ch).items():
        tensor = torch.randn(shape, generator=rng) * (0.1 if "embed" in name or "means" in name or ".bias" in name else 1)
        tensor = tensor.abs() + 0.5 if "vars" in name or name in ("generator.bn.weight",) else tensor
        if not name.endswith("*"):
            state[name] = tensor
            continue
        flat, name = tensor.flatten(1), name.removesuffix("*")
        u = F.normalize(torch.randn(shape[0], generator=rng), dim=0)
        for _ in range(5):  # as training left them: near the first singular vectors, not there
            v = F.normalize(flat.T @ u, dim=0)
            u = F.normalize(flat @ v, dim=0)
        state |= {f"{name}_orig": tensor, f"{name}_u": u, f"{name}_v": v}
    return state


def biggan_by_layers(variant: str, state: State, condition: Tensor, row: int) -> Tensor:
    """(n, 3, s, s) in [-1, 1] with the statistics of one row."""

    def w(name: str) -> Tensor:
        orig, u, v = (state[f"{name}.weight_{part}"] for part in ("orig", "u", "v"))
        return orig / torch.dot(u, torch.mv(orig.flatten(1), v))

    def norm(x: Tensor, at: str) -> Tensor:
        mean, var = (state[f"{at}.running_{part}"][row][None, :, None, None] for part in ("means", "vars"))
        scale, offset = (F.linear(condition, w(f"{at}.{part}"))[:, :, None, None] for part in ("scale", "offset"))
        return (x - mean) / torch.sqrt(var + 1e-4) * (1 + scale) + offset

    x = F.linear(condition, w("generator.gen_z"), state["generator.gen_z.bias"])
    x = x.view(len(x), 4, 4, -1).permute(0, 3, 1, 2)
    index = 0
    for number, (before, after, double) in enumerate(BLOCKS[variant]):
        at = f"generator.layers.{index}"
        if number == 8:
            n, c, h, _ = x.shape
            theta = F.conv2d(x, w(f"{at}.snconv1x1_theta")).view(n, c // 8, -1)
            phi = F.max_pool2d(F.conv2d(x, w(f"{at}.snconv1x1_phi")), 2).view(n, c // 8, -1)
            g = F.max_pool2d(F.conv2d(x, w(f"{at}.snconv1x1_g")), 2).view(n, c // 2, -1)
            seen = torch.einsum("nck,nqk->ncq", g, torch.einsum("ncq,nck->nqk", theta, phi).softmax(-1))
            x = x + state[f"{at}.gamma"] * F.conv2d(seen.view(n, c // 2, h, h), w(f"{at}.snconv1x1_o_conv"))
            index += 1
            at = f"generator.layers.{index}"
        y = x
        for i in range(4):
            y = F.relu(norm(y, f"{at}.bn_{i}"))
            y = y.repeat_interleave(2, 2).repeat_interleave(2, 3) if double and i == 1 else y
            y = F.conv2d(y, w(f"{at}.conv_{i}"), state[f"{at}.conv_{i}.bias"], padding=int(i in (1, 2)))
        x = x[:, : x.shape[1] // 2] if before != after else x
        x = y + (x.repeat_interleave(2, 2).repeat_interleave(2, 3) if double else x)
        index += 1
    mean, var = (state[f"generator.bn.running_{part}"][row][None, :, None, None] for part in ("means", "vars"))
    gain, offset = (state[f"generator.bn.{part}"][None, :, None, None] for part in ("weight", "bias"))
    x = F.relu((x - mean) / torch.sqrt(var + 1e-4) * gain + offset)
    return torch.tanh(F.conv2d(x, w("generator.conv_to_rgb"), state["generator.conv_to_rgb.bias"], padding=1)[:, :3])


@pytest.mark.parametrize("variant", ["128", "256", "512"])
def test_biggan_is_its_layers(variant: str) -> None:
    state = biggan_state(variant)
    model = BigGAN.build(HERE, BigGAN.convert(HERE, state, variant), variant)
    latents = model.sample(2, np.random.default_rng(0))
    table = state["embeddings.weight"]
    spread = (table - table.mean(1, keepdim=True)).pow(2).mean().sqrt()
    condition = torch.cat([0.7 * latents[:, :128], table.mean(1) + spread * latents[:, 128:]], dim=1)
    expected = (biggan_by_layers(variant, state, condition, row=35) + 1) / 2
    assert expected.shape == (2, 3, int(variant), int(variant))
    assert float(expected.std()) > 0.02
    torch.testing.assert_close(model(latents), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("variant", "count"), [("128", 506), ("256", 602), ("512", 698)])
def test_biggan_has_the_tensors_of_the_release(variant: str, count: int) -> None:
    names = biggan_shapes(variant, 128)
    assert sum(3 if name.endswith("*") else 1 for name in names) == count
    with torch.device("meta"):
        ours = {name: tuple(tensor.shape) for name, tensor in BigGAN(variant).state_dict().items()}
    release = {name.removesuffix("*"): shape for name, shape in names.items()}
    release |= {
        "generator.conv_to_rgb.weight": (3, 128, 3, 3),
        "generator.conv_to_rgb.bias": (3,),
    }  # the others are never shown
    assert ours == release


def test_biggan_of_old_torch_and_other_truncations() -> None:
    state = biggan_state()
    old = {name: tensor for name, tensor in state.items() if not name.endswith("_v")}
    for name in [name.removesuffix("_v") for name in state if name.endswith("_v")]:
        orig, u, v = (state[f"{name}_{part}"] for part in ("orig", "u", "v"))
        old[name] = orig / (u @ (orig.flatten(1) @ v))
    new, was = BigGAN.convert(HERE, state, "128"), BigGAN.convert(HERE, old, "128")
    assert all(torch.allclose(new[name], was[name], atol=1e-6) for name in new)
    model = BigGAN.build(HERE, new, "128")
    latents = model.sample(1, np.random.default_rng(0))
    shown = []
    for truncation in (0.5, 0.7, 1.0):
        model.truncation = truncation
        shown.append(model(latents))
    assert all(not torch.equal(shown[i], shown[i + 1]) for i in range(2))
    with pytest.raises(WeightsError, match=r"truncation above 0, up to 1, got 2"):
        BigGAN.load(variant="128", truncation=2)


@pytest.mark.parametrize("harm", ["another size", "no factor", "a factor more", "shape", "nan", "width"])
def test_other_checkpoints_are_refused_in_one_line(harm: str) -> None:
    state = biggan_state("256" if harm == "another size" else "128")
    name = "generator.layers.0.conv_1.weight"
    if harm == "no factor":
        del state[f"{name}_u"]
    elif harm == "a factor more":
        state[f"{name}_w"] = torch.zeros(3)
    elif harm == "shape":
        state[f"{name}_v"] = state[f"{name}_v"][:-1]
    elif harm == "nan":
        state[f"{name}_u"][0] = torch.nan
    elif harm == "width":
        state["generator.gen_z.bias"] = torch.zeros(100)
    with pytest.raises(WeightsError, match=r"expected .*found") as error:
        BigGAN.convert(HERE, state, "128")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
