"""What generators with weights from elsewhere share: reading a checkpoint without running its code, and finding what was added.

The weights of published generators are not part of this package. A lab adds its file once with `neurogym-v weights add`;
it is checked, converted to safetensors and kept in the user's data folder. Nothing is ever downloaded or unpickled.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from neurogym_v import weights
from neurogym_v.weights import WeightsError

TORCH = (".pt", ".pth", ".tar", ".bin", ".ckpt")
SUFFIXES = (*TORCH, ".safetensors", ".npz")
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "netG_state_dict",
    "generator_state_dict",
    "g_ema",
    "netG",
    "generator",
    "G",
    "model",
)
"""Where training scripts put the generator's state dict; the first that is there is taken."""
PREFIXES = ("module.", "_orig_mod.")
"""Put before every name by DataParallel and by torch.compile."""


class Added(nn.Module):
    """A generator whose weights a lab adds: `neurogym-v weights add NAME FILE`."""

    name: ClassVar[str]
    kind: ClassVar[str]
    variants: ClassVar[tuple[str, ...]] = ()
    any_variant: ClassVar[bool] = False
    """Whether users choose the part after the colon: it then tells their files apart."""
    source: ClassVar[str]
    """Where a lab gets the file."""

    latent_dim: int
    image_size: int
    bound: float = 10.0

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """(n, latent_dim) float32 latents from the prior, N(0, I), on the device of the weights."""
        latents = rng.standard_normal((n, self.latent_dim), dtype=np.float32)
        return torch.from_numpy(latents).to(next(self.parameters()).device)

    @classmethod
    def convert(cls, path: Path, tensors: Mapping[str, Tensor], variant: str) -> dict[str, Tensor]:
        """The tensors of a published checkpoint under the names of this package, float32.

        Raises:
            WeightsError: other tensors than this variant has, other shapes, or numbers that are not finite.
        """
        raise NotImplementedError

    @classmethod
    def build(cls, path: Path, tensors: Mapping[str, Tensor], variant: str) -> Self:
        """The generator of converted tensors, frozen, in eval mode, on the CPU; `path` is what errors name."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path | None = None, *, variant: str | None = None, device: str = "cpu") -> Self:
        """The generator from `path`, or the one that was added under this name and variant.

        Args:
            path: a file that `neurogym-v weights add` made.
            variant: one of `variants`; with a path: what the file must be (None: whatever it says it is).
            device: of the weights.

        Raises:
            WeightsError: the weights were not added, or are damaged, of another kind or variant, or have other tensors.
        """
        if variant is not None and cls.variants and variant not in cls.variants:
            raise WeightsError(f"generator {cls.name}: expected a variant of {', '.join(cls.variants)}, got {variant!r}")
        if path is None:
            path = weights.place(full_name(cls.name, variant))
            if not path.is_file():
                raise WeightsError(cls.missing(variant))
        tensors, card = weights.load(path, kind=cls.kind)
        found = str(card.get("variant") or "")
        if variant is not None and not cls.any_variant and found != variant:
            raise WeightsError(f"weights file {path}: expected variant {variant!r}, found {found!r}")
        if cls.variants and found not in cls.variants:
            raise WeightsError(f"weights file {path}: expected a variant of {', '.join(cls.variants)}, found {found!r}")
        return cls.build(path, tensors, found).to(device)

    @classmethod
    def missing(cls, variant: str | None) -> str:
        """What to do about weights that are not there, in one line."""
        if variant is None and cls.variants:
            names = ", ".join(full_name(cls.name, each) for each in cls.variants)
            return f"generator {cls.name}: expected a variant ({names}), got none"
        name = full_name(cls.name, variant)
        return (
            f"generator {name}: its weights are not part of this package and were not found at {weights.place(name)}; "
            f"get them from {cls.source}, then: neurogym-v weights add {name} FILE"
        )


def full_name(name: str, variant: str | None) -> str:
    """`deepsim` and `fc6` -> `deepsim:fc6`."""
    return f"{name}:{variant}" if variant else name


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what a model's state dict holds."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def fill(model: nn.Module, path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Give a model made on the meta device its tensors, checked; then freeze it in eval mode."""
    weights.check(path, tensors, shapes(model))
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    model.eval().requires_grad_(False)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a file as others wrote it (.pt .pth .tar .bin .ckpt .safetensors .npz), on the CPU.

    Common wrappers (`state_dict`, `netG_state_dict`, ...) and prefixes (`module.`) are taken off. A file that holds code
    is refused before any of it runs.

    Raises:
        WeightsError: no such file, a type that is not read, a damaged file, one with code in it, or not one state dict.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise WeightsError(f"checkpoint {path}: expected a file, found none")
    if suffix not in SUFFIXES:
        raise WeightsError(f"checkpoint {path}: expected one of {' '.join(SUFFIXES)}, found {suffix or 'no suffix'}")
    if suffix == ".safetensors":
        return _state_dict(path, weights.read(path)[1])
    return _state_dict(path, _read_npz(path) if suffix == ".npz" else _read_torch(path))


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch names the function or class that the file wants to be called
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not found:  # torch would advise to run the file
            refusal = pickle.UnpicklingError("a pickle of more than numbers; none of it was run")
            raise _damaged(path, "a PyTorch checkpoint", refusal) from None
        raise WeightsError(
            f"checkpoint {path}: refused, none of it was run: expected only numbers, found code ({found[1]}); "
            "where you trust it, save its state dict alone: torch.save(model.state_dict(), FILE)"
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise _damaged(path, "a PyTorch checkpoint", error) from None


def _read_npz(path: Path) -> Any:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(np.array(archive[name])) for name in archive.files}
    except Exception as error:  # damaged zip files, object arrays, types that torch has not
        raise _damaged(path, "an .npz of numbers alone", error) from None


def _damaged(path: Path, expected: str, error: Exception) -> WeightsError:
    reason = (str(error) or type(error).__name__).partition("\n")[0]
    return WeightsError(f"checkpoint {path}: expected {expected}, found a damaged or other file ({reason})")


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    for _ in range(8):  # a crafted file may hold itself
        inner = [key for key, value in content.items() if isinstance(value, Mapping)] if isinstance(content, Mapping) else []
        if not inner:
            break
        chosen = [key for key in WRAPPERS if key in inner] or inner
        if len(chosen) > 1 and chosen[0] not in WRAPPERS:
            raise WeightsError(f"checkpoint {path}: expected one state dict, found {weights.some(inner)}")
        content = content[chosen[0]]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"checkpoint {path}: expected a state dict (names and tensors), found {type(content).__name__}")
    others = [str(key) for key, value in content.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if others:
        raise WeightsError(f"checkpoint {path}: expected tensors alone, found others under {weights.some(others)}")
    tensors = {name: tensor.detach() for name, tensor in content.items()}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
