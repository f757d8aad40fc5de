"""What a result was made with: a digest of the code that an agent is made of."""

from __future__ import annotations

import ast
import hashlib
import inspect
from functools import cache
from importlib import metadata
from pathlib import Path

from neurogym_v import cast
from neurogym_v.registry import PROJECTIONS, agent_class

SHARED = ("agent", "agents", "evolution", "fitting", "incumbents", "lockstep", "projection", "synthesis")
"""Modules and packages of ours that what an agent does depends on, where it imports them."""
LIBRARIES = ("cma", "nevergrad", "numpy", "sb3-contrib", "stable-baselines3", "torch")
"""... and packages of others, by their version."""


@cache
def code_of(agent: str) -> str:
    """Digest of the code that an agent is made of, comments and docstrings left out; "" where it cannot be had.

    It is of the agent's file, of the modules of SHARED that this imports, and so on, and of the versions of the LIBRARIES that
    are imported by any of them.
    """
    try:
        cls, params = agent_class(agent)
        waiting = [Path(inspect.getsourcefile(cls) or "")]
        if any(key in params for key in PROJECTIONS):
            waiting += _shared("neurogym_v.projection")
        files, libraries = dict[Path, str](), set[str]()
        while waiting:
            if (file := waiting.pop().resolve()) not in files:
                tree = ast.parse(file.read_bytes())
                modules = _imported(tree)
                files[file] = ast.unparse(_Bare().visit(tree))
                waiting += [found for module in modules for found in _shared(module)]
                libraries |= {module.partition(".")[0].replace("_", "-") for module in modules}.intersection(LIBRARIES)
        whole = [*sorted(files.values()), *(f"{name} {metadata.version(name)}" for name in sorted(libraries))]
        return hashlib.sha256("\0".join(whole).encode()).hexdigest()[:12]
    except Exception:  # whatever a foreign file does when it is imported; the run itself says what
        return ""


class _Bare(ast.NodeTransformer):
    """Without docstrings."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node


def _imported(tree: ast.AST) -> set[str]:
    """Names of all modules that may be meant by the imports in a file, those through `require` included."""
    found = set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found |= {module} | {f"{module}.{alias.name}" for alias in names}
            case ast.Call(func=ast.Name(id="require" | "import_module"), args=[ast.Constant(value=str(module)), *_]):
                found.add(module)
    return found


def _shared(module: str) -> list[Path]:
    """The file of a module of ours that agents rest on."""
    package, *inner = module.split(".")
    if package != "neurogym_v" or not inner or inner[0] not in SHARED:
        return []
    at = Path(cast.__file__).parent.joinpath(*inner)
    return [file for file in (at.with_suffix(".py"), at / "__init__.py") if file.is_file()]
