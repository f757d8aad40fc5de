"""What numbers were computed on: an entry that was made on the same reproduces to the last digit."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from neurogym_v import __version__
from neurogym_v.registry import device_of

PACKAGES = ("numpy", "torch")
CPUS = Path("/proc/cpuinfo")


def versions() -> dict[str, str]:
    """Of what results rest on."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "neurogym-v": __version__,
    }


def hardware(device: str) -> dict[str, Any]:
    """The processor and its cores, and the device of generator and neuron: `cpu` or the name of a GPU.

    Raises:
        NeuroGymError: no such device.
    """
    device = device_of(device)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return {"cpu": _cpu(), "cores": os.cpu_count() or 1, "device": name}


def alike(entry: Mapping[str, Any], device: str) -> bool:
    """Whether an entry was made with these very versions on such a processor and device."""
    here = hardware(device)
    return entry["versions"] == versions() and all(entry["hardware"][key] == here[key] for key in ("cpu", "device"))


def _cpu() -> str:
    """Its name, what tells processors of one name apart, and the instructions that sums are made with: all round otherwise."""
    try:
        lines = CPUS.read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = said.get("model name") or platform.processor() or platform.machine()
    kind = [f"{key.split()[-1]} {said[key]}" for key in ("cpu family", "model") if key in said]
    return ", ".join([name, *kind, torch.backends.cpu.get_cpu_capability()])
