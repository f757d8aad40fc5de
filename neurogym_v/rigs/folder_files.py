"""The answers of a folder hand-off, `block017.mat` or `block017.h5`: how a lab's MATLAB writes them, and every way it can fail.

The names and their meaning are XDream's (github.com/willwx/XDream, `EPhysScorer`; Ponce et al. 2019), read as it reads them:

- `.mat`, saved with `-v7.3`, which is HDF5 behind 512 bytes: `stimulusID`, a cell array with the file name of each image, and
  `tEvokedResp`, their rates. MATLAB stores matrices column by column, HDF5 row by row: what is channels x images in MATLAB
  is (images, channels) in the file, and that is what is expected.
- `.h5`: `scores`, (images, channels) in the file, in the order of the sorted file names, or of `indices` into them, from 0.

What MATLAB puts around them (header, `MATLAB_class`, `#refs#`) is as in files that MATLAB R2020a to R2024b wrote.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs import RigError

NAMES, RESPONSES = "stimulusID", "tEvokedResp"
SCORES, INDICES = "scores", "indices"
MAGIC = b"\x89HDF\r\n\x1a\n"
USER_BLOCK = 512
LONGEST_NAME = 4096
"""Letters of a file name with its folder."""
LARGEST_ATTRIBUTE = 1024
LARGEST_CHUNK = 64 << 20
"""Bytes that one piece of a compressed matrix may have."""


class UnfinishedError(RigError):
    """The file is not whole, or not yet: a writer that is still at it leaves this, too."""


def write_mat(path: Path, names: Sequence[str], rates: NDArray[np.floating[Any]]) -> None:
    """Write (n, channels) rates as MATLAB's `save -v7.3` does; not at once, so give a temporary name and rename it.

    Args:
        names: of the images, one a row.
    """
    with h5py.File(path, "w", libver=("earliest", "v108"), userblock_size=USER_BLOCK) as file:
        kept = file.create_group("#refs#")
        empty = kept.create_dataset("a", data=np.zeros(2, dtype=np.uint64))
        empty.attrs["MATLAB_class"] = np.bytes_("canonical empty")
        empty.attrs["MATLAB_empty"] = np.uint8(1)
        cells = np.empty((1, len(names)), dtype=h5py.ref_dtype)  # a column in MATLAB: XDream reads no other
        for i, name in enumerate(names):
            letters = np.frombuffer(name.encode("utf-16-le"), dtype=np.uint16)[:, None]
            text = kept.create_dataset(f"b{i}", data=letters)
            text.attrs["H5PATH"] = np.bytes_(text.name)
            text.attrs["MATLAB_class"] = np.bytes_("char")
            text.attrs["MATLAB_int_decode"] = np.int32(2)
            cells[0, i] = text.ref
        file.create_dataset(NAMES, data=cells).attrs["MATLAB_class"] = np.bytes_("cell")
        file.create_dataset(RESPONSES, data=np.asarray(rates, dtype=float)).attrs["MATLAB_class"] = np.bytes_("double")
    now = f"{datetime.now(UTC):%a %b %d %H:%M:%S %Y}"
    words = f"MATLAB 7.3 MAT-file, Platform: {platform.system()}, Created on: {now} HDF5 schema 1.00 ."
    with path.open("r+b") as raw:
        raw.write(words.encode("ascii", "replace")[:116].ljust(116) + bytes(8) + b"\x00\x02IM")


def write_h5(path: Path, rates: NDArray[np.floating[Any]], indices: Sequence[int] | None = None) -> None:
    """Write (n, channels) rates in the order of the sorted file names, or of `indices` into them."""
    with h5py.File(path, "w") as file:
        file.create_dataset(SCORES, data=np.asarray(rates, dtype=float))
        if indices is not None:
            file.create_dataset(INDICES, data=np.asarray(indices, dtype=np.int64))


def read_answer(path: Path, names: Sequence[str], channels: int) -> NDArray[np.float64]:
    """What a `.mat` or `.h5` file says of a block; nothing larger than that is read.

    Args:
        names: the images' file names, in any order.

    Returns:
        (n, channels) rates in the order of `names`; NaN: lost.

    Raises:
        UnfinishedError: the file breaks off, or something is not in it that a writer may still be about to put there.
        RigError: it is none of these formats, or tells of other images, or not of rates.
    """
    try:
        _recognise(path)
        with h5py.File(path, "r", locking="best-effort") as file:
            return (_mat if path.suffix == ".mat" else _h5)(file, path.name, names, channels)
    except RigError:
        raise
    except FileNotFoundError:
        raise UnfinishedError(f"{path.name}: expected an answer, found it gone again") from None
    except Exception as error:  # of a damaged file HDF5 may say anything
        reason = " ".join(str(error).split())[:200]
        raise UnfinishedError(
            f"{path.name}: expected a whole HDF5 file, found one that breaks off or is damaged ({reason}); "
            "write it under another name and rename it when it is whole"
        ) from None


def _recognise(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(USER_BLOCK + len(MAGIC))
    wanted = "save with -v7.3" if path.suffix == ".mat" else "write it with h5py or MATLAB's h5write"
    if start.startswith(b"MATLAB 5.0 MAT-file") or start[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
        raise RigError(f"{path.name}: expected HDF5, found a MAT-file of version 5 or 7; {wanted}")
    if not (start.startswith(MAGIC) or start[USER_BLOCK:].startswith(MAGIC)):
        if not any(start) or start.startswith(b"MATLAB 7.") or b"MATLAB 7.".startswith(start) or MAGIC.startswith(start):
            raise UnfinishedError(f"{path.name}: expected a whole HDF5 file, found only its first {path.stat().st_size} bytes")
        raise RigError(f"{path.name}: expected HDF5, found a file that begins with {start[:20]!r}; {wanted}")


def _mat(file: Any, called: str, names: Sequence[str], channels: int) -> NDArray[np.float64]:
    cells = _dataset(file, called, NAMES)
    cellstr = f"make it a cell array of char: {NAMES} = cellstr({NAMES})"
    if _class(cells) not in ("", "cell") or not (_is_empty(cells) or h5py.check_ref_dtype(cells.dtype) is h5py.Reference):
        raise RigError(f"{called}: expected {NAMES} to be a cell array, found {_class(cells) or cells.dtype}; {cellstr}")
    if _is_empty(cells) or cells.size > 2 * len(names) or max(cells.shape, default=1) != cells.size:
        found = "none" if _is_empty(cells) else " x ".join(map(str, cells.shape[::-1])) or "one"
        raise RigError(f"{called}: expected the names of {len(names)} images in {NAMES}, found {found}")
    found_names = [_name(file, reference) for reference in np.ravel(_values(cells, called))]
    told = [name for name in found_names if name is not None]
    if len(told) < len(found_names):
        cell = f"{NAMES}{{{found_names.index(None) + 1}}}"
        raise RigError(f"{called}: expected a file name in {cell}, found no text or too long a one; {cellstr}")
    rows = _rows_of(called, NAMES, told, names)
    return _matrix(file, called, RESPONSES, len(names), channels)[rows]


def _name(file: Any, reference: h5py.Reference) -> str | None:
    """A row of letters; None for anything else."""
    text = file[reference] if reference else None
    if not isinstance(text, h5py.Dataset) or _class(text) not in ("", "char") or text.dtype.kind != "u":
        return None
    if _is_empty(text):
        return ""
    if text.dtype.itemsize > 4 or max(text.shape, default=1) != text.size or text.size > LONGEST_NAME:
        return None
    return str(np.ravel(_values(text, NAMES)).astype("<u2").tobytes().decode("utf-16-le", "replace"))


def _h5(file: Any, called: str, names: Sequence[str], channels: int) -> NDArray[np.float64]:
    rates, order = _matrix(file, called, SCORES, len(names), channels), sorted(names)
    if INDICES not in file:
        told = order
    else:
        indices = _dataset(file, called, INDICES)
        if indices.dtype.kind not in "iuf" or indices.dtype.itemsize > 8 or _class(indices) == "char":
            raise RigError(f"{called}: expected whole numbers in {INDICES}, found {_class(indices) or indices.dtype}")
        if indices.size != len(names) or max(indices.shape, default=1) != indices.size:
            raise RigError(f"{called}: expected {len(names)} {INDICES}, one a row of {SCORES}, found {indices.shape}")
        at = np.ravel(_values(indices, called))
        if not np.all((at >= 0) & (at < len(names)) & (at == np.floor(at))):
            raise RigError(f"{called}: expected {INDICES} from 0 to {len(names) - 1}, found {at.min():g} to {at.max():g}")
        told = [order[int(i)] for i in at]
    return rates[_rows_of(called, INDICES, told, names)]


def _rows_of(called: str, where: str, told: Sequence[str], names: Sequence[str]) -> list[int]:
    """The row of each image; every one must be told of once, by its file name with or without folder and ending."""
    known, rows = {_stem(name): name for name in names}, dict[str, int]()
    for row, name in enumerate(told):
        stem = _stem(name)
        if stem not in known:
            raise RigError(f"{called}: expected in {where} the names of the images that were shown, found {name[:80]!r}")
        if stem in rows:
            raise RigError(f"{called}: expected each image once in {where}, found {known[stem]} twice")
        rows[stem] = row
    if missing := [name for name in names if _stem(name) not in rows]:
        raise RigError(
            f"{called}: expected all {len(names)} images in {where}, found {len(rows)} of them; {missing[0]} is missing"
        )
    return [rows[_stem(name)] for name in names]


def _stem(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2].removesuffix(".png")


def _matrix(file: Any, called: str, key: str, images: int, channels: int) -> NDArray[np.float64]:
    dataset = _dataset(file, called, key)
    shape, kind = dataset.shape, _class(dataset)
    if kind in ("char", "cell", "string", "logical"):
        raise RigError(f"{called}: expected numbers in {key}, found {kind}")
    if dataset.dtype.kind not in "iuf" or dataset.dtype.itemsize > 16:
        raise RigError(f"{called}: expected numbers in {key}, found {str(dataset.dtype)[:60]}")
    if _is_empty(dataset):
        raise RigError(f"{called}: expected {images} x {channels} rates in {key}, found an empty matrix")
    if shape != (images, channels) and not (channels == 1 and shape == (images,)):
        turn = f"; turn it round: {key} = {key}.'" if shape == (channels, images) else ""
        raise RigError(
            f"{called}: expected {key} for {images} images and {channels} channels, which is {images} x {channels} in HDF5 and "
            f"{channels} x {images} in MATLAB, found {' x '.join(map(str, shape)) or 'one number'} in HDF5{turn}"
        )
    with np.errstate(over="ignore"):  # of numbers beyond float64, which are infinite then
        rates = np.asarray(_values(dataset, called), dtype=np.float64).reshape(images, channels)
    if np.isinf(rates).any():
        raise RigError(f"{called}: expected finite rates in {key}, or NaN for lost trials, found an infinite one")
    return rates


def _dataset(file: Any, called: str, key: str) -> Any:
    """A matrix that lies in this very file, whole."""
    link = file.get(key, getlink=True)
    if link is None:
        have = ", ".join(sorted(name for name in islice(file, 20) if name != "#refs#")) or "nothing"
        raise UnfinishedError(f"{called}: expected a matrix {key}, found {have}")
    if not isinstance(link, h5py.HardLink) or not isinstance(dataset := file[key], h5py.Dataset):
        raise RigError(f"{called}: expected {key} to be a full matrix, found a link, a struct or a sparse one")
    if dataset.shape is None or dataset.is_virtual or dataset.external:
        raise RigError(f"{called}: expected the numbers of {key} in the file, found them to be elsewhere")
    return dataset


def _values(dataset: Any, called: str) -> Any:
    """What is in it, once it is known to be of the right size; never what HDF5 fills in for numbers not written yet."""
    name = dataset.name.strip("/")
    if dataset.chunks:
        if math.prod(dataset.chunks) * dataset.dtype.itemsize > LARGEST_CHUNK:
            raise RigError(f"{called}: expected {name} in pieces of at most {LARGEST_CHUNK >> 20} MiB, found {dataset.chunks}")
        pieces = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        unwritten = dataset.id.get_num_chunks() < pieces
    else:
        unwritten = dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_NOT_ALLOCATED
    if unwritten:
        raise UnfinishedError(f"{called}: expected numbers in {name}, found it without all of them")
    return dataset[()]


def _class(dataset: Any) -> str:
    """What MATLAB says that it is; nothing where another program wrote it."""
    said = _attribute(dataset, "MATLAB_class")
    return said.decode("ascii", "replace") if isinstance(said, bytes) else "" if said is None else str(said)


def _attribute(dataset: Any, key: str) -> Any:
    if key not in dataset.attrs or dataset.attrs.get_id(key).get_storage_size() > LARGEST_ATTRIBUTE:
        return None
    return dataset.attrs[key]


def _is_empty(dataset: Any) -> bool:
    """Of a matrix without elements MATLAB writes its sizes instead."""
    return not dataset.size or bool(np.any(_attribute(dataset, "MATLAB_empty")))
