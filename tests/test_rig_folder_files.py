"""Answers of a folder hand-off: written as MATLAB writes them, read whole or refused in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurogym_v.rigs import RigError
from neurogym_v.rigs.folder_files import UnfinishedError, read_answer, write_h5, write_mat

NAMES = [f"block004_{i:03d}_p{200 - i:06d}.png" for i in range(5)]
RATES = np.array([[3.5, -1.0, 0.0], [np.nan] * 3, [1e-3, 250.0, 7.0], [4.0, np.nan, 6.0], [8.0, 9.0, 10.0]])


def cells(file: h5py.File, *names: str | None, column: bool = True) -> None:
    """A cell array of these names; of None an empty one."""
    references = np.empty(len(names), dtype=h5py.ref_dtype)
    for i, name in enumerate(names):
        data = np.zeros(2, np.uint64) if name is None else np.frombuffer(name.encode("utf-16-le"), "<u2")[:, None]
        text = file.create_dataset(f"#refs#/c{i}", data=data)
        text.attrs["MATLAB_class"] = np.bytes_("char")
        if name is None:
            text.attrs["MATLAB_empty"] = np.uint8(1)
        references[i] = text.ref
    if "stimulusID" in file:
        del file["stimulusID"]
    made = file.create_dataset("stimulusID", data=references[None] if column else references[:, None])
    made.attrs["MATLAB_class"] = np.bytes_("cell")


def replaced(key: str, data: Any, kind: str = "", **options: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if key in file:
            del file[key]
        made = file.create_dataset(key, data=data, **options)
        if kind:
            made.attrs["MATLAB_class"] = np.bytes_(kind)

    return change


def unwritten(key: str, **options: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]
        file.create_dataset(key, **({"shape": (5, 3), "dtype": "f8"} | options))

    return change


def deleted(key: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(key)


def linked(file: h5py.File) -> None:
    del file["tEvokedResp"]
    file["tEvokedResp"] = h5py.ExternalLink("/etc/other.mat", "/tEvokedResp")


def sparse(file: h5py.File) -> None:
    del file["tEvokedResp"]
    file.create_group("tEvokedResp")["data"] = [1.0]


def elsewhere(file: h5py.File) -> None:
    del file["tEvokedResp"]
    file.create_dataset("tEvokedResp", (5, 3), "f8", external=[("/dev/zero", 0, 120)])


def empty(key: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        replaced(key, np.zeros(2, np.uint64), "cell" if key == "stimulusID" else "double")(file)
        file[key].attrs["MATLAB_empty"] = np.uint8(1)

    return change


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    write_mat(path := tmp_path / "block004.mat", NAMES, RATES)
    return path


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    write_h5(path := tmp_path / "block004.h5", RATES)
    return path


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 1, 2]])
def test_what_is_written_is_read(tmp_path: Path, order: list[int]) -> None:
    write_mat(tmp_path / "a.mat", [NAMES[i] for i in order], RATES[order])
    write_h5(tmp_path / "a.h5", RATES[order], order)
    shuffled = [2, 4, 0, 1, 3]
    for name in ("a.mat", "a.h5"):
        np.testing.assert_array_equal(read_answer(tmp_path / name, NAMES, 3), RATES)
        np.testing.assert_array_equal(read_answer(tmp_path / name, [NAMES[i] for i in shuffled], 3), RATES[shuffled])


def test_one_channel_and_one_image(tmp_path: Path) -> None:
    write_h5(tmp_path / "flat.h5", RATES[:, 0])
    np.testing.assert_array_equal(read_answer(tmp_path / "flat.h5", NAMES, 1), RATES[:, :1])
    write_mat(tmp_path / "one.mat", NAMES[:1], RATES[:1, :1])
    assert read_answer(tmp_path / "one.mat", NAMES[:1], 1) == [[3.5]]


def test_the_layout_is_matlabs(mat: Path) -> None:
    """Header, classes and orders as in files written by MATLAB R2020a to R2024b, looked at from outside."""
    start = mat.read_bytes()[:520]
    header = (
        rb"MATLAB 7\.3 MAT-file, Platform: \S+, Created on: \w{3} \w{3} [\d ]\d \d\d:\d\d:\d\d \d{4} HDF5 schema 1\.00 \. *"
    )
    assert re.fullmatch(header, start[:116])
    assert start[116:128] == bytes(8) + b"\x00\x02IM"
    assert start[128:512] == bytes(384)
    assert start[512:] == b"\x89HDF\r\n\x1a\n"
    with h5py.File(mat) as file:
        assert file.userblock_size == 512
        assert file["tEvokedResp"].shape == (5, 3)
        assert file["tEvokedResp"].attrs["MATLAB_class"] == b"double"
        ids = file["stimulusID"]
        assert (ids.shape, ids.attrs["MATLAB_class"]) == ((1, 5), b"cell")  # 5 x 1 in MATLAB: XDream takes the first row
        letters = [file[reference] for reference in ids[0]]
        assert {(text.dtype.str, text.shape) for text in letters} == {("<u2", (len(NAMES[0]), 1))}
        assert {text.attrs["MATLAB_class"] for text in letters} == {b"char"}
        assert {int(text.attrs["MATLAB_int_decode"]) for text in letters} == {2}
        assert ["".join(map(chr, text[:, 0])) for text in letters] == NAMES


def test_a_file_that_matlab_wrote_is_recognised() -> None:
    data = Path(scipy.io.__file__).parent / "matlab" / "tests" / "data"
    if not (data / "testhdf5_7.4_GLNX86.mat").exists():
        pytest.skip("SciPy came without its test files")
    with pytest.raises(UnfinishedError, match="expected a matrix stimulusID, found testdouble$"):
        read_answer(data / "testhdf5_7.4_GLNX86.mat", NAMES, 3)
    for old in ("testcell_7.4_GLNX86", "testcell_6.1_SOL2", "testdouble_6.5.1_GLNX86"):
        with pytest.raises(RigError, match="found a MAT-file of version 5 or 7; save with -v7.3"):
            read_answer(data / f"{old}.mat", NAMES, 3)
    with pytest.raises(RigError, match="found a file that begins with .*; save with -v7.3"):
        read_answer(data / "testdouble_4.2c_SOL2.mat", NAMES, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: cells(file, *NAMES, column=False),
        lambda file: cells(file, *(f"D:\\stimuli\\{name}" for name in NAMES)),
        lambda file: cells(file, *(f"/data/{name.removesuffix('.png')}" for name in NAMES)),
        replaced("tEvokedResp", RATES, compression="gzip", chunks=(2, 2)),
        replaced("tEvokedResp", RATES, "double", maxshape=(None, None)),
        replaced("lfp", np.zeros((2, 1000)), "double"),
    ],
    ids=["row", "with folder", "without ending", "compressed", "may grow", "with more in it"],
)
def test_what_labs_may_do(mat: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(mat, "r+") as file:
        change(file)
    np.testing.assert_array_equal(read_answer(mat, NAMES, 3), RATES)


def test_other_numbers(mat: Path) -> None:
    for kind in ("f4", "i4", "u1", "u8"):
        whole = np.arange(15, dtype=kind).reshape(5, 3)
        with h5py.File(mat, "r+") as file:
            replaced("tEvokedResp", whole)(file)
        np.testing.assert_array_equal(read_answer(mat, NAMES, 3), whole)


WRONG_MAT: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "unknown": (
        lambda f: cells(f, *NAMES[:4], "block003_000_p000007.png"),
        "names of the images that were shown, found 'block003",
    ),
    "no name": (lambda f: cells(f, *NAMES[:4], None), "names of the images that were shown, found ''"),
    "missing": (lambda f: cells(f, *NAMES[:4]), f"all 5 images in stimulusID, found 4 of them; {NAMES[4]} is missing"),
    "twice": (lambda f: cells(f, *NAMES[:4], NAMES[2]), f"each image once in stimulusID, found {NAMES[2]} twice"),
    "too many": (lambda f: cells(f, *NAMES, *NAMES, *NAMES), "names of 5 images in stimulusID, found 15 x 1"),
    "none": (empty("stimulusID"), "names of 5 images in stimulusID, found none"),
    "long name": (lambda f: cells(f, *NAMES[:4], "x" * 5000), "found no text or too long a one; .*cellstr"),
    "char matrix": (replaced("stimulusID", np.zeros((24, 5), "u2"), "char"), "to be a cell array, found char; .* cellstr"),
    "strings": (replaced("stimulusID", np.zeros((1, 6), "u4"), "string"), "to be a cell array, found string; .* cellstr"),
    "fewer rows": (replaced("tEvokedResp", RATES[:4], "double"), "is 5 x 3 in HDF5 and 3 x 5 in MATLAB, found 4 x 3 in HDF5$"),
    "fewer columns": (replaced("tEvokedResp", RATES[:, :2], "double"), "for 5 images and 3 channels, .* found 5 x 2"),
    "on its side": (replaced("tEvokedResp", RATES.T, "double"), r"found 3 x 5 in HDF5; .* tEvokedResp = tEvokedResp\.'"),
    "a number": (replaced("tEvokedResp", 3.0, "double"), "found one number"),
    "huge": (unwritten("tEvokedResp", shape=(1 << 40, 3)), "found 1099511627776 x 3"),
    "huge names": (
        lambda f: replaced("stimulusID", None, shape=(1, 1 << 40), dtype=h5py.ref_dtype)(f),
        "found 1099511627776 x 1",
    ),
    "huge pieces": (
        unwritten("tEvokedResp", maxshape=(None, None), chunks=(9000, 9000), compression="gzip"),
        "pieces of at most 64 MiB",
    ),
    "no rates": (empty("tEvokedResp"), "5 x 3 rates in tEvokedResp, found an empty matrix"),
    "text": (replaced("tEvokedResp", np.zeros((5, 3), "u2"), "char"), "expected numbers in tEvokedResp, found char"),
    "python's text": (replaced("tEvokedResp", [["1"] * 3] * 5), "expected numbers in tEvokedResp, found object"),
    "cells": (lambda f: replaced("tEvokedResp", f["stimulusID"][()], "cell")(f), "expected numbers in tEvokedResp, found cell"),
    "complex": (replaced("tEvokedResp", RATES + 1j, "double"), "expected numbers in tEvokedResp, found complex"),
    "logical": (replaced("tEvokedResp", np.zeros((5, 3), "u1"), "logical"), "expected numbers in tEvokedResp, found logical"),
    "infinite": (replaced("tEvokedResp", np.full((5, 3), np.inf)), "expected finite rates"),
    "beyond": (replaced("tEvokedResp", np.full((5, 3), np.longdouble("1e4000"))), "expected finite rates"),
    "struct": (sparse, "to be a full matrix, found a link, a struct or a sparse one"),
    "linked": (linked, "to be a full matrix, found a link"),
    "elsewhere": (elsewhere, "found them to be elsewhere"),
}
UNFINISHED: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "no rates": (deleted("tEvokedResp"), "expected a matrix tEvokedResp, found stimulusID$"),
    "no names": (deleted("stimulusID"), "expected a matrix stimulusID, found tEvokedResp$"),
    "nothing written": (unwritten("tEvokedResp"), "found it without all of them"),
    "half written": (unwritten("tEvokedResp", chunks=(2, 3)), "found it without all of them"),
}


@pytest.mark.parametrize("wrong", WRONG_MAT)
def test_a_wrong_mat_is_refused_in_one_line(mat: Path, wrong: str) -> None:
    change, message = WRONG_MAT[wrong]
    with h5py.File(mat, "r+") as file:
        change(file)
    with pytest.raises(RigError, match=message) as caught:
        read_answer(mat, NAMES, 3)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("block004.mat: expected ")
    assert not isinstance(caught.value, UnfinishedError)


@pytest.mark.parametrize("wrong", UNFINISHED)
def test_a_mat_that_may_still_be_written(mat: Path, wrong: str) -> None:
    change, message = UNFINISHED[wrong]
    with h5py.File(mat, "r+") as file:
        change(file)
        if wrong == "half written":
            file["tEvokedResp"][:2] = RATES[:2]
    with pytest.raises(UnfinishedError, match=message):
        read_answer(mat, NAMES, 3)


WRONG_H5: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "fewer rows": (replaced("scores", RATES[:4]), "found 4 x 3"),
    "more columns": (replaced("scores", np.zeros((5, 4))), "found 5 x 4"),
    "text": (replaced("scores", [["a"] * 3] * 5), "expected numbers in scores"),
    "no such index": (replaced("indices", [0, 1, 2, 3, 5]), "expected indices from 0 to 4, found 0 to 5"),
    "below": (replaced("indices", [-1, 0, 1, 2, 3]), "expected indices from 0 to 4, found -1 to 3"),
    "as MATLAB counts": (replaced("indices", [1.0, 2, 3, 4, 5]), "expected indices from 0 to 4, found 1 to 5"),
    "no number": (replaced("indices", [0, 1, 2, 3, np.nan]), "expected indices from 0 to 4"),
    "between": (replaced("indices", [0, 1, 2, 3, 3.5]), "expected indices from 0 to 4"),
    "twice": (replaced("indices", [0, 1, 2, 3, 3]), f"each image once in indices, found {NAMES[3]} twice"),
    "too few": (replaced("indices", [0, 1, 2, 3]), "expected 5 indices"),
    "square": (replaced("indices", np.zeros((5, 5))), "expected 5 indices"),
    "indices in words": (replaced("indices", ["0"] * 5), "expected whole numbers in indices"),
    "empty": (replaced("scores", h5py.Empty("f8")), "elsewhere"),
}


@pytest.mark.parametrize("wrong", WRONG_H5)
def test_a_wrong_h5_is_refused_in_one_line(h5: Path, wrong: str) -> None:
    change, message = WRONG_H5[wrong]
    with h5py.File(h5, "r+") as file:
        change(file)
    with pytest.raises(RigError, match=message) as caught:
        read_answer(h5, NAMES, 3)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, UnfinishedError)


def test_indices_as_matlab_writes_numbers(h5: Path) -> None:
    for indices in (np.array([[4.0, 3, 2, 1, 0]]), np.array([[4.0], [3], [2], [1], [0]]), np.arange(5, dtype="u1")[::-1]):
        with h5py.File(h5, "r+") as file:
            replaced("indices", indices)(file)
        np.testing.assert_array_equal(read_answer(h5, NAMES, 3), RATES[::-1])


@pytest.mark.parametrize("ending", ["mat", "h5"])
def test_a_file_that_breaks_off_is_never_read(mat: Path, h5: Path, ending: str) -> None:
    path = mat if ending == "mat" else h5
    whole = path.read_bytes()
    for length in (0, 1, 7, 100, 128, 511, 512, 515, 600, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UnfinishedError, match=r"block004\.\w+: expected a whole HDF5 file, found .*"):
            read_answer(path, NAMES, 3)
    path.unlink()
    with pytest.raises(UnfinishedError, match="found it gone again"):
        read_answer(path, NAMES, 3)


def test_no_hdf5_at_all(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"stimulusID": NAMES, "tEvokedResp": RATES.T})
    with pytest.raises(RigError, match="version 5 or 7; save with -v7.3"):
        read_answer(tmp_path / "a.mat", NAMES, 3)
    (tmp_path / "b.mat").write_text("# Created by Octave 8.4.0\n# name: tEvokedResp\n")
    with pytest.raises(RigError, match=r"begins with b'# Created by Octave '; save with -v7.3"):
        read_answer(tmp_path / "b.mat", NAMES, 3)
    (tmp_path / "c.h5").write_text("1,2,3\n")
    with pytest.raises(RigError, match="begins with .*; write it with h5py"):
        read_answer(tmp_path / "c.h5", NAMES, 3)


def read_or_refuse(path: Path, content: bytes) -> None:
    """Whatever is in the file: rates of the right size, or a RigError in one line."""
    path.write_bytes(content)
    try:
        rates = read_answer(path, NAMES, 3)
    except RigError as error:
        assert "\n" not in str(error)
    else:
        assert (rates.shape, rates.dtype) == ((5, 3), np.float64)
        assert not np.isinf(rates).any()


EXAMPLES = int(os.environ.get("NEUROGYM_V_FUZZ_EXAMPLES", "80"))
FUZZ = settings(max_examples=EXAMPLES, deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=9)), min_size=1, max_size=6))
@pytest.mark.parametrize("ending", ["mat", "h5"])
def test_a_damaged_file_is_read_or_refused(mat: Path, h5: Path, ending: str, changes: list[tuple[int, bytes]]) -> None:
    write_mat(mat, NAMES, RATES)
    write_h5(h5, RATES, range(5))
    path = mat if ending == "mat" else h5
    content = bytearray(path.read_bytes())
    used = np.flatnonzero(np.frombuffer(content, np.uint8))  # most of such a file is zeros, where damage does nothing
    for place, new in changes:
        at = int(used[place % len(used)])
        content[at : at + len(new)] = new
    read_or_refuse(path, bytes(content))


@FUZZ
@given(
    start=st.sampled_from([b"", b"\x89HDF\r\n\x1a\n", b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n"]),
    rest=st.binary(),
)
@pytest.mark.parametrize("ending", ["mat", "h5"])
def test_random_bytes_are_refused(tmp_path: Path, ending: str, start: bytes, rest: bytes) -> None:
    read_or_refuse(tmp_path / f"block004.{ending}", start + rest)
