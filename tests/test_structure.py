"""The architecture holds: layers, file sizes, packaging."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    ("types", "registration", "files", "importing", "naming", "database", "memory"),
    (
        "weights",
        "networks",
        "generators",
        "neurons",
        "fitting",
        "references",
        "agent",
        "stats",
        "scoring",
        "render",
        "evolution",
        "incumbents",
        "projection",
        "synthesis",
        "lockstep",
        "tracking",
    ),
    ("journal", "registry", "noise", "cast", "normaliser", "objectives", "session", "together", "env", "vector"),
    (
        "loop",
        "validation",
        "experiment",
        "pictures",
        "report",
        "testing",
        "testing_generators",
        "testing_rigs",
        "rigs",
        "export",
        "sb3",
        "tracked",
    ),
    ("benchmarks",),
    ("cli",),
)
"""A module imports from its own layer and from those above it in this list."""
MODELS = {"networks", "fitting", "synthesis"}
"""What an agent that makes a model of the neuron makes it of."""
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
SOURCES = sorted(p for p in (ROOT / "neurogym_v").rglob("*.py") if "agents" not in p.parts and "benchmarks" not in p.parts)
AGENTS = sorted((ROOT / "agents").glob("*.py"))


def imported(path: Path) -> set[str]:
    """The parts of neurogym_v that a file imports: `neurogym_v.env` -> env."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            parts = module.split(".")
            if parts[0] == "neurogym_v" and len(parts) > 1:
                found.add(parts[1])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_import_only_from_layers_below(path: Path) -> None:
    part = path.relative_to(ROOT / "neurogym_v").parts[0].removesuffix(".py")
    if part == "__init__":
        assert imported(path) <= {"registration"}
        return
    above = {name for name in imported(path) if LEVEL[name] > LEVEL[part]}
    assert not above, f"{part} (layer {LEVEL[part]}) imports from above: {above}"


@pytest.mark.parametrize("path", AGENTS, ids=lambda p: p.name)
def test_agents_see_neither_neurons_nor_each_other(path: Path) -> None:
    assert (
        imported(path)
        <= {"types", "agent", "evolution", "incumbents", "generators", "importing", "naming", "lockstep"} | MODELS
    )


def test_every_part_has_a_layer() -> None:
    parts = {p.relative_to(ROOT / "neurogym_v").parts[0].removesuffix(".py") for p in SOURCES} - {"__init__"}
    assert parts == set(LEVEL) - {"benchmarks"}


def test_no_file_is_longer_than_400_lines() -> None:
    files = [
        *SOURCES,
        *AGENTS,
        *(ROOT / "benchmarks").rglob("*.py"),
        *(ROOT / "examples").glob("*.py"),
        *(ROOT / "tests").glob("*.py"),
    ]
    assert {p.name: n for p in files if (n := len(p.read_text().splitlines())) > 400} == {}


def test_packages_are_all_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {p.parent for p in [*SOURCES, *(ROOT / "neurogym_v" / "agents").glob("*.py")]}
    folders |= {p.parent for p in (ROOT / "neurogym_v" / "benchmarks").rglob("*.py")}
    names = {".".join(f.relative_to(ROOT).parts) for f in folders}
    assert set(project["tool"]["setuptools"]["packages"]) == names


def test_top_level_agents_cannot_be_imported_by_a_name_another_package_owns() -> None:
    run = subprocess.run([sys.executable, "-c", "import agents"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "neurogym_v.agents" in run.stderr


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, neurogym_v; print([m for m in ('torch', 'matplotlib', 'scipy', 'skimage') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_weights_have_a_card_and_a_size_that_ships() -> None:
    files = list((ROOT / "neurogym_v").rglob("*.safetensors"))
    assert files
    for path in files:
        assert path.stat().st_size < 20 * 2**20
        assert path.with_suffix(".md").is_file(), f"{path.name} has no card"
