"""Adding weights on the command line, and every way in which a generator can be named."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from neurogym_v import registry, weights
from neurogym_v.cli import main
from neurogym_v.generators.deepsim import DeePSiM
from neurogym_v.registry import GENERATORS, load_generator
from neurogym_v.types import NeuroGymError
from neurogym_v.weights import WeightsError

Refused = Callable[..., str]

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own, and a working folder of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    registry._load.cache_clear()
    return tmp_path / "data" / "neurogym_v" / "weights"


@pytest.fixture
def tiny() -> State:
    """A DCGAN of 6 latents and 16 px."""
    rng = torch.Generator().manual_seed(0)
    state = {
        f"main.{3 * i}.weight": torch.randn(a, b, 4, 4, generator=rng) / 4 for i, (a, b) in enumerate([(6, 8), (8, 4), (4, 3)])
    }
    for i, width in ((1, 8), (4, 4)):
        state |= {f"main.{i}.{part}": torch.zeros(width) for part in ("bias", "running_mean")}
        state |= {f"main.{i}.{part}": torch.ones(width) for part in ("weight", "running_var")}
    return state


@pytest.fixture
def norm1() -> State:
    """DeePSiM norm1 as XDream names it: the smallest of the eight."""
    torch.manual_seed(0)
    names = {"Rconv": "conv", "deconv": "tconv"}
    state = {}
    for name, tensor in DeePSiM("norm1").net.state_dict().items():
        layer = name.rpartition(".")[0]
        for ours, theirs in names.items():
            if layer.startswith(ours):
                name = name.replace(layer, layer.replace(ours, theirs) + ("_0" if theirs == "tconv" else ""))
        if name.endswith("weight") or layer.startswith("Rconv"):
            state[name] = tensor
    return state


class Malice:
    """What unpickles to a command."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_lab_adds_its_weights_and_searches_with_them(
    norm1: State, home: Path, photographs: Path, capsys, refused: Refused
) -> None:
    torch.save(norm1, "norm1.pt")
    assert "neurogym-v weights add deepsim:norm1 FILE" in refused("run", "--generator", "deepsim:norm1", "--out", "run")
    assert main(["weights", "add", "deepsim:norm1", "norm1.pt"]) == 0
    printed = capsys.readouterr().out
    kept = home / "deepsim-norm1.safetensors"
    assert str(kept) in printed
    assert "neurogym-v run --generator deepsim:norm1" in printed
    card = weights.card_of(kept)
    assert card["source_sha256"] == hashlib.sha256(Path("norm1.pt").read_bytes()).hexdigest()
    assert card["tensors_sha256"] == weights.digest(weights.load(kept, kind="generator:deepsim")[0])
    assert card["variant"] == "norm1"
    assert card["added"]
    by_name = load_generator("deepsim:norm1", device="cpu")
    by_path = load_generator(str(kept), device="cpu")
    latents = by_name.sample(1, np.random.default_rng(0))
    assert torch.equal(by_name(latents), by_path(latents))
    options = ["--neuron", "gabor", "--budget", "8", "--batch-size", "4", "--agent", "random", "--references", str(photographs)]
    assert main(["run", "--generator", "deepsim:norm1", *options, "--out", "run"]) == 0
    assert Path("run/summary.json").is_file()


def test_list_and_where(tiny: State, home: Path, capsys, refused: Refused) -> None:
    torch.save(tiny, "tiny.pth")
    assert main(["weights", "add", "dcgan:blobs", "tiny.pth"]) == 0
    capsys.readouterr()
    assert main(["weights", "list"]) == 0
    printed = capsys.readouterr().out
    for word in ("deepsim:fc6", "biggan:512", "to be added", "dcgan:blobs", "weights added 2", "willwx/XDream"):
        assert word in printed
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for word in ("deepsim:pool5", "biggan:128", "to be added", "dcgan:blobs"):
        assert word in printed
    assert main(["weights", "where"]) == 0
    assert capsys.readouterr().out.strip() == str(home)
    assert main(["weights", "where", "dcgan:blobs"]) == 0
    assert capsys.readouterr().out.strip() == str(home / "dcgan-blobs.safetensors")
    assert "huggingface/pytorch-pretrained-BigGAN" in refused("weights", "where", "biggan:256")
    (home / "dcgan-blobs.safetensors").write_bytes(b"x")
    assert main(["weights", "list"]) == 0
    assert "damaged" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["plain", "wrapped", "checkpoint", "parallel", "safetensors", "npz", "legacy"])
def test_the_same_weights_in_every_form(form: str, tiny: State) -> None:
    path = Path({"safetensors": "a.safetensors", "npz": "a.npz", "wrapped": "a.tar"}.get(form, "a.pt"))
    if form == "safetensors":
        save_file(tiny, path)
    elif form == "npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tiny.items()})
    elif form == "wrapped":
        torch.save({"netG_state_dict": tiny}, path)
    elif form == "checkpoint":
        torch.save({"epoch": 3, "state_dict": tiny, "optimizer": {"lr": 0.1}}, path)
    elif form == "parallel":
        torch.save({f"module.{name}": tensor for name, tensor in tiny.items()}, path)
    else:
        torch.save(tiny, path, _use_new_zipfile_serialization=form != "legacy")
    torch.save(tiny, "reference.pt")
    for name, file in (("dcgan:form", path), ("dcgan", "reference.pt")):
        assert main(["weights", "add", name, str(file)]) == 0
    one, other = load_generator("dcgan:form", device="cpu"), load_generator("dcgan", device="cpu")
    latents = one.sample(2, np.random.default_rng(0))
    assert torch.equal(one(latents), other(latents))


@pytest.mark.parametrize("form", ["zip", "bare pickle", "new pickle", "npz", "module"])
def test_a_file_with_code_in_it_is_refused_unread(form: str, tiny: State, home: Path, refused: Refused) -> None:
    path = Path("evil.npz" if form == "npz" else "evil.pt")
    if form == "zip":
        torch.save(tiny | {"more": Malice()}, path)
    elif form == "bare pickle":
        path.write_bytes(pickle.dumps(Malice(), protocol=2))
    elif form == "new pickle":
        path.write_bytes(pickle.dumps(Malice(), protocol=5))
    elif form == "npz":
        np.savez(path, weight=np.array([Malice()], dtype=object))
    else:
        torch.save(torch.nn.Linear(2, 2), path)
    line = refused("weights", "add", "dcgan", path)
    assert "evil" in line
    others = {"npz": "allow_pickle=False", "new pickle": "a pickle of more than numbers; none of it was run"}
    assert others.get(form, "refused, none of it was run: expected only numbers, found code") in line
    assert "weights_only" not in line  # the advice of torch, to run it
    assert not Path("ran").exists()
    assert not home.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dcgan", None, "expected a file, found none"),
        ("dcgan", b"", "found a damaged or other file"),
        ("dcgan", b"not a checkpoint", "found a damaged or other file"),
        ("dcgan", {"weights": 3}, "expected tensors alone, found others under weights"),
        ("dcgan", {}, "expected a state dict"),
        ("dcgan", {"netX": {"a": torch.zeros(1)}, "netY": {"a": torch.zeros(1)}}, "expected one state dict, found netX, netY"),
        ("dcgan", {"a.weight": torch.zeros(3, 3, 5, 5)}, "expected a chain of 4 x 4 transposed convolutions"),
        ("deepsim:fc6", {"fc7.weight": torch.zeros(3, 3)}, "expected 24 tensors"),
        ("biggan:256", {"fc7.weight": torch.zeros(3, 3)}, "expected BigGAN-deep"),
        ("deepsim:fc9", {}, "unknown variant of generator deepsim 'fc9': did you mean 'fc"),
        ("deepsin:fc6", {}, "unknown generator 'deepsin': did you mean 'deepsim'?"),
        ("deepsim", {}, "expected a variant (deepsim:fc6, "),
        ("dcgan:../up", {}, "expected letters, digits"),
        ("natural64", {}, "this one needs no weights"),
        ("natural64:fc6", {}, "expected no variant"),
    ],
)
def test_what_cannot_be_added(name: str, content: object, message: str, home: Path, refused: Refused) -> None:
    path = Path("given.pt")
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    assert message in refused("weights", "add", name, path)
    assert not home.exists()


@pytest.mark.parametrize("harm", ["truncated", "flipped", "infinite"])
def test_damaged_checkpoints_are_refused(harm: str, tiny: State, home: Path, refused: Refused) -> None:
    path = Path("given.safetensors" if harm == "truncated" else "given.pt")
    if harm == "infinite":
        tiny["main.0.weight"][0, 0, 0, 0] = torch.inf
    (save_file if harm == "truncated" else torch.save)(tiny, path)
    content = bytearray(path.read_bytes())
    if harm == "truncated":
        path.write_bytes(content[: len(content) * 2 // 3])
    elif harm == "flipped":
        content[len(content) * 2 // 3 : len(content) * 2 // 3 + 4] = b"\xff\xff\xff\xff"  # a NaN, or a broken archive
        path.write_bytes(content)
    assert "expected" in refused("weights", "add", "dcgan", path)
    assert not home.exists()


def test_variants_that_have_the_same_shapes_are_told_apart_by_the_name_of_the_file(norm1: State, refused: Refused) -> None:
    Path("fc6").mkdir()
    for path in (Path("upconvGAN_fc6.pt"), Path("fc6/generator_state_dict.pt")):
        torch.save(norm1, path)
        assert "expected fc7, found a file named fc6; rename it" in refused("weights", "add", "deepsim:fc7", path)
    with pytest.raises(WeightsError, match="expected a variant of fc6, .*, got 'fc9'"):
        DeePSiM.load(variant="fc9")


def test_files_of_other_types_are_refused(tmp_path: Path, refused: Refused) -> None:
    Path("generator.caffemodel").write_bytes(b"caffe")
    assert "expected one of .pt" in refused("weights", "add", "deepsim:fc6", "generator.caffemodel")
    assert "expected a file, found none" in refused("weights", "add", "deepsim:fc6", tmp_path)


def test_a_place_that_cannot_be_written(tiny: State, tmp_path: Path, refused: Refused) -> None:
    torch.save(tiny, "tiny.pt")
    (tmp_path / "data").write_text("in the way")
    line = refused("weights", "add", "dcgan", "tiny.pt")
    assert "dcgan.safetensors: could not be written, and nothing was left there: " in line


def test_a_full_disk_leaves_what_was_there(tiny: State, home: Path) -> None:
    """A limit on the size of files is what any user can set; the kernel then refuses to write as a full disk does."""
    torch.save(tiny, "tiny.pt")
    assert main(["weights", "add", "dcgan", "tiny.pt"]) == 0
    before = {path.name: path.read_bytes() for path in home.iterdir()}
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))\n"
        "from neurogym_v.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "weights", "add", "dcgan", "tiny.pt"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stderr
    assert "could not be written" in run.stderr.strip().splitlines()[-1]
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before


def test_without_a_data_folder_of_their_own_weights_go_to_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "not/absolute"):
        monkeypatch.setenv("XDG_DATA_HOME", value)
        assert weights.folder() == tmp_path / ".local" / "share" / "neurogym_v" / "weights"


LAB = '''
import numpy as np, torch

class Stripes(torch.nn.Module):
    """A lab's own."""
    latent_dim, image_size, bound = 3, 8, 10.0
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))
    def forward(self, latents):
        return torch.sigmoid(self.gain * latents)[:, :, None, None].expand(-1, -1, 8, 8)
    def sample(self, n, rng):
        return torch.from_numpy(rng.standard_normal((n, 3), dtype=np.float32))

def make(): return Stripes()
ready = Stripes()
def needs(size): return Stripes()
def fails(): raise RuntimeError("no such file: gan.pkl")
def nothing(): return 3
number = 3
class Bright(Stripes):
    def forward(self, latents): return 255 * super().forward(latents)
class Grey(Stripes):
    def forward(self, latents): return super().forward(latents)[:, :1]
class Nan(Stripes):
    def forward(self, latents): return super().forward(latents) * float("nan")
class Short(Stripes):
    def sample(self, n, rng): return super().sample(n, rng)[:, :2]
class Unbound(Stripes):
    bound = None
class Crash(Stripes):
    def forward(self, latents): raise ValueError("wrong size")
'''


def test_generators_of_other_packages() -> None:
    Path("lab_of_ours.py").write_text(LAB)
    for name in ("Stripes", "make", "ready"):
        generator = load_generator(f"lab_of_ours:{name}", device="cpu")
        assert generator(generator.sample(2, np.random.default_rng(0))).shape == (2, 3, 8, 8)
        assert not any(parameter.requires_grad for parameter in generator.parameters())  # type: ignore[attr-defined]
    del sys.modules["lab_of_ours"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needs", "expected a callable without arguments that makes a generator, found TypeError"),
        ("fails", "found RuntimeError: no such file: gan.pkl"),
        ("nothing", "found int without"),
        ("number", "expected a callable that makes a generator, found int"),
        ("absent", "expected a callable 'absent' in module 'lab_of_ours', found none"),
        ("Bright", "expected images in [0, 1], found"),
        ("Nan", "expected images in [0, 1], found nan"),
        ("Grey", "expected images as a floating-point tensor of shape (2, 3, 8, 8), found (2, 1, 8, 8)"),
        ("Short", "found"),
        ("Unbound", "all above 0, found 3, 8 and None"),
        ("Crash", "expected two images of sample(2, rng), found ValueError: wrong size"),
    ],
)
def test_generators_of_other_packages_that_break_the_contract(name: str, message: str) -> None:
    Path("lab_of_ours.py").write_text(LAB)
    with pytest.raises(NeuroGymError) as error:
        load_generator(f"lab_of_ours:{name}", device="cpu")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    del sys.modules["lab_of_ours"]


def test_names_that_are_nothing() -> None:
    with pytest.raises(NeuroGymError, match=r"no module is named 'deepsin'; did you mean 'deepsim'\?"):
        load_generator("deepsin:fc6", device="cpu")
    with pytest.raises(NeuroGymError, match="no module is named 'no.such.module'"):
        load_generator("no.such.module:Gan", device="cpu")
    with pytest.raises(NeuroGymError, match="did you mean 'pool5'"):
        load_generator("deepsim:pool6", device="cpu")
    with pytest.raises(NeuroGymError, match="expected a variant"):
        load_generator("biggan", device="cpu")
    Path("broken_module.py").write_text("import no_such_dependency")
    with pytest.raises(NeuroGymError, match="expected a module that can be imported, found ModuleNotFoundError"):
        load_generator("broken_module:Gan", device="cpu")
    save_file({"a": torch.zeros(1)}, "theirs.safetensors")
    with pytest.raises(WeightsError, match="neurogym-v weights add NAME FILE"):
        load_generator("theirs.safetensors", device="cpu")


@pytest.mark.parametrize("name", ["deepsim", "biggan", "dcgan"])
def test_missing_weights_say_where_they_are_from(name: str) -> None:
    assert name in GENERATORS
    variant = {"deepsim": "deepsim:fc6", "biggan": "biggan:256"}.get(name, name)
    with pytest.raises(WeightsError, match=f"get them from .* neurogym-v weights add {variant} FILE") as error:
        load_generator(variant, device="cpu")
    assert "\n" not in str(error.value)
