"""A run as an NWB 2 file: metadata, electrodes, spikes, a table of trials, every image, every latent.

Source: the NWB schema, https://nwb-schema.readthedocs.io.
"""

from __future__ import annotations

import io
import json
import re
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neurogym_v.export.about import UNSAID, About, about
from neurogym_v.export.images import Progress, Shown, latent_digest, shown_by
from neurogym_v.export.rig import Rig
from neurogym_v.export.run import Run
from neurogym_v.export.times import Spikes, Times, spikes_of, times_of
from neurogym_v.export.trials import Column, columns_of
from neurogym_v.files import as_json, write_whole
from neurogym_v.importing import require

TO_MICROSECOND = "to within a microsecond"


def write_nwb(run: Run, path: Path, *, neo: bool = False, progress: Progress = lambda *_: None) -> tuple[str, ...]:
    """Write a run to an NWB file, whole or not at all.

    Args:
        neo: leave out what Neo 0.14 cannot read: keywords, the IndexSeries (trials say the same), and of the observation
            intervals of a unit all but one, from the first window to the last; the gaps between go to `invalid_times`.

    Returns:
        What a reader of the file should know, a sentence each.

    Raises:
        NeuroGymError: pynwb is missing, or the images cannot be drawn again.
        OSError: the file cannot be written.
    """
    pynwb = require("pynwb", user="export", extra="nwb")
    described, times, shown = about(run), times_of(run), shown_by(run, progress)
    spikes = spikes_of(run, times) if any(len(p.spike_s) for p in run.presentations) else None
    told = (*described.warnings, *_told(run, shown, spikes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on what later versions of the schema may do
        file = _file(pynwb, run, described, times, told, neo=neo)
        _images(pynwb, file, run, shown, times, neo=neo)
        _trials(pynwb, file, columns_of(run, times, shown))
        _latents(pynwb, file, run)
        if run.rig is not None:
            _units(pynwb, file, run, run.rig, described, spikes, neo=neo)
        progress("file", 0, 1)
        held = io.BytesIO()  # HDF5 does not come to rest on a disk that is full: it gets memory, and the disk the whole
        with h5py.File(held, "w") as hdf5, pynwb.NWBHDF5IO(file=hdf5, mode="w") as out:
            out.write(file)
        write_whole(path, lambda target: target.write(held.getbuffer()))
        progress("file", 1, 1)
    return told


def _told(run: Run, shown: Shown, spikes: Spikes | None) -> Iterator[str]:
    total = len(run.presentations)
    if unknown := int((shown.which < 0).sum()):
        yield f"{unknown} of {total} presentations are of images that are not known: they belong to what was not finished"
    if shown.others:
        yield (
            f"{shown.others} of {total} images that were drawn again differ in some pixel from what was shown (another machine "
            "or version?); column image_id has the digests of what was shown"
        )
    if run.rig is not None and spikes is None:
        yield "the rig told no spike times: there are no units"
    if not all(agent.finished for agent in run.record.agents):
        yield "the run is not finished: the file has what was shown so far"


def _file(pynwb: Any, run: Run, described: About, times: Times, told: Sequence[str], *, neo: bool) -> Any:
    clock = (
        "Simulated presentations have no times of their own: they stand where the nominal timing of a session puts them."
        if run.rig is None
        else "Times are those of the acquisition's clock; one that began anew was moved behind what was before (column shift). "
        "When it showed 0 is known to within some seconds."
    )
    lines = [f"{at}  {what}" for at, what in run.notes]
    session = {key: value for key, value in described.session.items() if not (neo and key == "keywords")}
    file = pynwb.NWBFile(
        identifier=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run.digest} {len(run.presentations)}")),
        session_start_time=run.started,
        timestamps_reference_time=times.reference,
        notes="\n".join([*described.notes, clock, *told, *lines]),
        data_collection=None if run.rig is None else f"Trials begin with the measured onset of an image. {_windows(run)}",
        stimulus_notes="Images are 8-bit sRGB, as they were handed to the display; rows of pixels come first.",
        was_generated_by=[["neurogym-v", version("neurogym-v")]],
        **session,
    )
    file.subject = pynwb.file.Subject(**described.subject)
    config = json.dumps(as_json(asdict(run.record.config)), indent=1)
    scratch = {
        "run_config": (config, "What the run was started with, as JSON."),
        "journal_sha256": (run.digest, "Of all that the run's journal holds: session, block, image, latent and rates."),
    }
    if run.rig is not None:
        scratch["rig_file"] = (run.rig.text, "The rig file that the run was begun with.")
    for name, (text, description) in scratch.items():
        file.add_scratch(text, name=name, description=description)
    return file


def _windows(run: Run) -> str:
    if run.rig is None:
        return ""
    window, (start, end) = run.rig.window, run.rig.window.response_s
    said = f"Spikes were counted from {1000 * start:g} to {1000 * end:g} ms after it"
    if window.baseline_s is None:
        return f"{said}."
    start, end = window.baseline_s
    return f"{said}; of rates the one from {1000 * start:g} to {1000 * end:g} ms is subtracted."


def _images(pynwb: Any, file: Any, run: Run, shown: Shown, times: Times, *, neo: bool) -> None:
    """The images as templates, and which of them came on when as an IndexSeries."""
    pictures = [
        pynwb.image.RGBImage(name=f"image_{at:05d}", data=_compressed(pixels), description=label)
        for at, (pixels, label) in enumerate(zip(shown.pixels, shown.labels, strict=True))
    ]
    if not pictures:
        return
    order = pynwb.base.ImageReferences(name="order_of_images", data=pictures)
    images = pynwb.base.Images(
        name="images", images=pictures, description="Every distinct image once, as first shown.", order_of_images=order
    )
    file.add_stimulus_template(images)
    onset = times.start if run.rig is None else times.onset
    seen = np.flatnonzero((shown.which >= 0) & np.isfinite(onset))
    if len(seen) and not neo:
        series = pynwb.image.IndexSeries(
            name="presentations",
            data=shown.which[seen].astype(np.uint32),
            unit="N/A",
            indexed_images=images,
            timestamps=onset[seen],
            description="Which image appeared when; presentations without a measured onset are in the trials alone.",
        )
        file.add_stimulus(series)


def _trials(pynwb: Any, file: Any, columns: Sequence[Column]) -> None:
    made = []
    for column in columns:
        large = isinstance(column.data, np.ndarray) and column.data.ndim > 1
        data = _compressed(column.data) if large else column.data
        made.append(pynwb.core.VectorData(name=column.name, description=column.description, data=data))
    names = [column.name for column in columns]
    file.trials = pynwb.epoch.TimeIntervals(
        name="trials",
        description="One row a presentation, in the order in which they were shown.",
        columns=made,
        colnames=names,
    )


def _latents(pynwb: Any, file: Any, run: Run) -> None:
    """Every distinct latent once, by its digest."""
    found: dict[str, Any] = {}
    for p in run.presentations:
        if p.asked.latent is not None:
            found.setdefault(latent_digest(p.asked.latent), p.asked.latent)
    if not found:
        return
    numbers = np.stack(list(found.values())).astype("<f4")
    columns = [
        pynwb.core.VectorData(name="sha256", description="Of the numbers, float32, little-endian.", data=list(found)),
        pynwb.core.VectorData(name="latent", description="As given to the generator.", data=_compressed(numbers)),
    ]
    description = f"Latents of the generated images, each once, for the generator {run.record.config.generator}."
    module = file.create_processing_module(name="misc", description="What images were generated from.")
    module.add(pynwb.core.DynamicTable(name="latents", description=description, columns=columns, colnames=["sha256", "latent"]))


def _units(pynwb: Any, file: Any, run: Run, rig: Rig, described: About, spikes: Spikes | None, *, neo: bool) -> None:
    said = described.electrode
    file.create_device(name="acquisition", description=f"{rig.acquisition}: what spikes were received from.")
    what = said.get("description", f"Electrode: {UNSAID}")
    model = file.create_device_model(name="electrode_model", manufacturer=said.get("manufacturer", UNSAID), description=what)
    device = file.create_device(name="electrode", description=what, model=model)
    location = said.get("location", "unknown")
    group = file.create_electrode_group(
        name=re.sub("[/:]", "-", said.get("group", "electrode")),  # HDF5 and NWB keep these for themselves
        description=what,
        location=location,
        device=device,
    )
    more = {key: said[key] for key in ("filtering", "reference") if key in said}
    file.add_electrode_column("channel_name", "As the recording system calls it.")
    for name in run.sites:
        file.add_electrode(location=location, group=group, channel_name=name, **more)
    if spikes is None:
        return
    whole = np.array([[spikes.intervals[0, 0], spikes.intervals[-1, 1]]])
    least = "one sample" if spikes.sampled else "what times are compared with; the sampling rate is not known"
    file.units = pynwb.misc.Units(
        name="units",
        description=f"Spikes of each channel as the recording system told them, within the windows of the presentations that "
        f"were kept. obs_intervals are these windows, {TO_MICROSECOND}; resolution is {least}.",
        resolution=spikes.resolution,
        electrode_table=file.electrodes,
    )
    file.units.add_column("channel_name", "As the recording system calls it.")
    for at, name in enumerate(run.sites):
        intervals = whole if neo else spikes.intervals
        file.add_unit(spike_times=spikes.times[at], obs_intervals=intervals, electrodes=[at], channel_name=name)
    if neo:
        for end, start in zip(spikes.intervals[:-1, 1], spikes.intervals[1:, 0], strict=True):
            file.add_invalid_time_interval(start_time=end, stop_time=start)


def _compressed(data: np.ndarray[Any, Any]) -> Any:
    return require("pynwb", user="export", extra="nwb").H5DataIO(data, compression="gzip")
