"""Numbers on disk: safetensors files that name what they are and prove that they are whole.

Every file carries a `kind` (what it may be loaded as) and the SHA-256 of its tensors in the header, so that a truncated,
bit-flipped or swapped file is refused with one sentence instead of giving other numbers. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from neurogym_v.files import write_whole
from neurogym_v.types import NeuroGymError


class WeightsError(NeuroGymError):
    """A weights file is missing, damaged, or of another kind than what was asked for."""


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes of the tensors, in the order of their names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def save(path: Path, tensors: Mapping[str, torch.Tensor], *, kind: str, card: Mapping[str, object]) -> str:
    """Write `tensors` with their `kind` and data card (JSON) to `path`, whole or not at all; returns the digest."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sha = digest(tensors)
    metadata = {"kind": kind, "sha256": sha, "card": json.dumps(card, sort_keys=True)}
    write_whole(path, lambda file: file.write(serialise(tensors, metadata=metadata)))
    return sha


def kind_of(path: Path) -> str:
    """The kind that a weights file says it is."""
    return _read(path)[0].get("kind", "no kind")


def load(path: Path, *, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Read (tensors, card) from a file that `save` wrote with the same `kind`.

    Raises:
        WeightsError: no such file, not safetensors, cut short, another kind, or a digest that does not match.
    """
    header, tensors = _read(path)
    if header.get("kind") != kind:
        raise WeightsError(f"weights file {path}: expected kind {kind!r}, found {header.get('kind', 'no kind')!r}")
    if header.get("sha256") != digest(tensors):
        raise WeightsError(f"weights file {path}: the SHA-256 in its header is not that of its tensors; the file is damaged")
    return tensors, json.loads(header.get("card", "{}"))


def check(path: Path, tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise WeightsError unless there are exactly these tensors, of these shapes, with finite floating-point numbers."""
    if tensors.keys() != shapes.keys():
        missing, more = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
        raise WeightsError(f"weights file {path}: expected tensors {sorted(shapes)}, found none of {missing}, but {more}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise WeightsError(f"weights file {path}: {name}: expected shape {shape}, found {tuple(tensor.shape)}")
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            found = "others" if tensor.is_floating_point() else str(tensor.dtype)
            raise WeightsError(f"weights file {path}: {name}: expected finite floating-point numbers, found {found}")


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise WeightsError(f"weights file {path}: expected a safetensors file, found none")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"weights file {path}: expected whole safetensors, found a damaged file ({error})") from None
    return header, tensors
