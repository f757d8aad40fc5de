"""Numbers on disk: safetensors files that name what they are and prove that they are whole.

Every file carries a `kind` (what it may be loaded as) and the SHA-256 of its tensors in the header, so that a truncated,
bit-flipped or swapped file is refused with one sentence instead of giving other numbers. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
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


def folder() -> Path:
    """Where weights that a user adds are kept: `neurogym_v/weights` in $XDG_DATA_HOME, or else in ~/.local/share."""
    home = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".local" / "share") / "neurogym_v" / "weights"


def place(name: str) -> Path:
    """The file of added weights: `deepsim:fc6` -> FOLDER/deepsim-fc6.safetensors."""
    return folder() / f"{name.replace(':', '-')}.safetensors"


def kind_of(path: Path) -> str:
    """The kind that a weights file says it is."""
    return read(path, tensors=False)[0].get("kind", "no kind")


def card_of(path: Path) -> dict[str, object]:
    """The data card in a weights file; empty if there is none."""
    return _card(path, read(path, tensors=False)[0])


def load(path: Path, *, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Read (tensors, card) from a file that `save` wrote with the same `kind`.

    Raises:
        WeightsError: no such file, not safetensors, cut short, another kind, or a digest that does not match.
    """
    header, tensors = read(path)
    if header.get("kind") != kind:
        raise WeightsError(f"weights file {path}: expected kind {kind!r}, found {header.get('kind', 'no kind')!r}")
    if header.get("sha256") != digest(tensors):
        raise WeightsError(f"weights file {path}: the SHA-256 in its header is not that of its tensors; the file is damaged")
    return tensors, _card(path, header)


def check(path: Path, tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise WeightsError unless there are exactly these tensors, of these shapes, with finite floating-point numbers."""
    if tensors.keys() != shapes.keys():
        missing, more = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
        differ = [f"without {some(missing)}"] * bool(missing) + [f"with {some(more)} besides"] * bool(more)
        expected = f"expected {len(shapes)} tensors ({some(sorted(shapes))})"
        raise WeightsError(f"weights file {path}: {expected}, found them {' and '.join(differ)}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise WeightsError(f"weights file {path}: {name}: expected shape {shape}, found {tuple(tensor.shape)}")
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            found = "others" if tensor.is_floating_point() else str(tensor.dtype)
            raise WeightsError(f"weights file {path}: {name}: expected finite floating-point numbers, found {found}")


def _card(path: Path, header: Mapping[str, str]) -> dict[str, object]:
    try:
        card = json.loads(header.get("card", "{}"))
    except ValueError as error:
        raise WeightsError(f"weights file {path}: expected a card in JSON, found a damaged one ({error})") from None
    return dict(card) if isinstance(card, dict) else {}


def some(names: Iterable[object], most: int = 4) -> str:
    """A few of many names, for one line."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def read(path: Path, *, tensors: bool = True) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The header and, unless not asked for, the tensors of any safetensors file; nothing but its wholeness is checked.

    Raises:
        WeightsError: no such file, not safetensors, or cut short.
    """
    if not path.is_file():
        raise WeightsError(f"weights file {path}: expected a safetensors file, found none")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in (file.keys() if tensors else ())}
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"weights file {path}: expected whole safetensors, found a damaged file ({error})") from None
    return header, found
