"""Freed memory is kept where a process is ours, and the command that tells what that saves."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from neurogym_v import memory
from neurogym_v.benchmarks.memory import Spent, main, report

FAULTS = """
import ctypes, resource, sys
import torch
from neurogym_v.memory import keep_freed
PR_SET_THP_DISABLE = 41
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)  # a huge page would count as one
if sys.argv[1] == "kept":
    assert keep_freed()
def batch():
    return float(torch.ones(10_000_000).sum())  # 40 MB, 9,766 pages: more than glibc ever keeps by itself
for _ in range(20):  # until there is a place for everything
    batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    assert batch() == 10_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


@glibc
def test_what_is_kept_is_not_asked_of_the_system_again() -> None:
    def faults(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)

    assert faults("given back") > 20 * 1000
    assert faults("kept") < 20 * 10


@pytest.mark.parametrize("lacking", [AttributeError, OSError])
def test_another_c_library_is_left_as_it_is(lacking: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def library(_name: None) -> object:
        raise lacking

    monkeypatch.setattr(memory.ctypes, "CDLL", library)
    assert not memory.keep_freed()
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not memory.keep_freed()


@glibc
def test_the_command_compares_processes_in_turns(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    options = "--neuron gabor --generator fourier --rounds 2 --turns 1".split()
    monkeypatch.setattr("sys.argv", ["memory", *options])
    main()
    told = capsys.readouterr().out
    assert "given back" in told and "kept" in told and "images and rates are the same" in told
    for arguments, said in [("--turns 0", "expected 1 or more"), ("--neuron nosuch --turns 1", "unknown neuron 'nosuch'")]:
        monkeypatch.setattr("sys.argv", ["memory", *arguments.split()])
        with pytest.raises(SystemExit):
            main()
        assert said in capsys.readouterr().err


def test_images_that_differ_are_told() -> None:
    one, other = (Spent(seconds=s, faults=1, peak_mib=1, shown=shown) for s, shown in ((0.3, "a"), (0.2, "b")))
    assert report({False: [one], True: [one]}).caption == "images and rates are the same"
    assert report({False: [one], True: [other]}).caption == "images and rates are NOT the same"
