"""The wheel holds what it must and owns no name that is not ours."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built from a copy of what git would hand out."""
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode().split("\0")
    if not any(files):
        pytest.skip("the list of files to build from is git's, and this is no git checkout")
    for name in filter(None, files):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            (source / name).symlink_to((ROOT / name).readlink())
        elif (ROOT / name).is_file():
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return out


def test_the_wheel(built: Path) -> None:
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"neurogym_v"}
    for name in (
        "neurogym_v/agents/cma_es.py",
        "neurogym_v/benchmarks/speed.py",
        "neurogym_v/py.typed",
        "neurogym_v/generators/weights/natural64.safetensors",
        "neurogym_v/generators/weights/natural64.md",
        "neurogym_v/neurons/weights/v4.safetensors",
    ):
        assert name in names


def test_the_source_archive(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"agents/ga.py", "tests/conftest.py", "LICENSE", "README.md", "pyproject.toml"} <= names
    assert not any(name.startswith(("neurogym_v/agents/", "runs/")) for name in names)


def test_the_wheel_works_without_the_checkout(built: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(tmp_path)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from neurogym_v.cli import main; import neurogym_v\n"
    code += f"assert neurogym_v.__file__.startswith({str(tmp_path)!r}); sys.exit(main(['list']))"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "cma_es" in run.stdout
