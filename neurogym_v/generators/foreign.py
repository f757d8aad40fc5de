"""Generators of other packages: MODULE:CALLABLE, imported from where it is installed or from the working folder."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurogym_v.generators import Generator
from neurogym_v.types import NeuroGymError


def load(name: str, known: tuple[str, ...], *, device: str = "cpu") -> Generator:
    """What MODULE:CALLABLE returns, checked; `known` are the names that may have been meant.

    Raises:
        NeuroGymError: no such module or callable, or what it makes is no `Generator`.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)  # a lab's own file in the folder it works in; last, so that it hides nothing
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            close = difflib.get_close_matches(module_name, known, n=1, cutoff=0.6)
            hint = f"; did you mean {close[0]!r}?" if close else f" (generators: {', '.join(known)})"
            raise NeuroGymError(f"generator {name!r}: no generator and no module is named {module_name!r}{hint}") from None
        raise _wrong(name, "a module that can be imported", error) from error
    except Exception as error:  # other people's code
        raise _wrong(name, "a module that can be imported", error) from error
    finally:
        sys.path.remove(here)
    made: Any = getattr(module, attribute, None)
    if made is None:
        raise _wrong(name, f"a callable {attribute!r} in module {module_name!r}", "none")
    if isinstance(made, type) or not hasattr(made, "latent_dim"):  # not a generator that is there already
        if not callable(made):
            raise _wrong(name, "a callable that makes a generator", type(made).__name__)
        try:
            made = made()
        except Exception as error:
            raise _wrong(name, "a callable without arguments that makes a generator", error) from error
    if isinstance(made, torch.nn.Module):
        made = made.to(device).eval().requires_grad_(False)
    _check(name, made)
    generator: Generator = made
    return generator


def _check(name: str, made: Any) -> None:
    """Raise NeuroGymError unless an object keeps the `Generator` protocol, tried on two images."""
    missing = [part for part in ("latent_dim", "image_size", "bound", "sample", "__call__") if not hasattr(made, part)]
    if missing:
        raise _wrong(name, "latent_dim, image_size, bound, sample() and a call", f"{type(made).__name__} without {missing}")
    d, size, bound = made.latent_dim, made.image_size, made.bound
    if not all(isinstance(n, int) and n > 0 for n in (d, size)) or not isinstance(bound, int | float) or not bound > 0:
        expected = "latent_dim and image_size as whole numbers and bound as a number, all above 0"
        raise _wrong(name, expected, f"{d!r}, {size!r} and {bound!r}")
    try:
        latents = made.sample(2, np.random.default_rng(0))
        parameters = getattr(made, "parameters", None)  # as `draw` does
        device = next(parameters(), torch.empty(0)).device if parameters else torch.device("cpu")
        with torch.no_grad():
            images = made(latents.to(device))
    except Exception as error:
        raise _wrong(name, "two images of sample(2, rng)", error) from error
    for what, tensor, shape in (("latents", latents, (2, d)), ("images", images, (2, 3, size, size))):
        if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape or not tensor.is_floating_point():
            found = f"{tuple(tensor.shape)} {tensor.dtype}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise _wrong(name, f"{what} as a floating-point tensor of shape {shape}", found)
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise _wrong(name, "images in [0, 1]", f"{low:.3g} to {high:.3g}")


def _wrong(name: str, expected: str, found: object) -> NeuroGymError:
    if isinstance(found, Exception):
        found = f"{type(found).__name__}: {str(found).partition(chr(10))[0]}"
    return NeuroGymError(f"generator {name!r}: expected {expected}, found {found}")
