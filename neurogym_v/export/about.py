"""Who was recorded, by whom and with what, in the forms that NWB asks for; where nobody has said, that stands there.

Sources: best practices of NWB, https://nwbinspector.readthedocs.io; NCBI taxonomy for what is no species.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from neurogym_v.export.run import Run

TAXON = "http://purl.obolibrary.org/obo/NCBITaxon_"
UNIDENTIFIED, SYNTHETIC = f"{TAXON}32644", f"{TAXON}32630"
"""The taxa `unidentified` and `synthetic construct`."""
SPECIES = re.compile(rf"[A-Z][a-z]* [a-z]+|{TAXON}\d+")
SEXES = {"male": "M", "female": "F", "other": "O", "unknown": "U"}
ANY_AGE = "P0D/"
"""From 0 days on: nothing is known."""
PERIOD = (
    r"P(?=.)(\d+(\.\d+)?Y)?(\d+(\.\d+)?M)?(\d+(\.\d+)?W)?(\d+(\.\d+)?D)?(T(?=\d)(\d+(\.\d+)?H)?(\d+(\.\d+)?M)?(\d+(\.\d+)?S)?)?"
)
AGE = re.compile(rf"{PERIOD}|({PERIOD})?/({PERIOD})?")
WEIGHT = re.compile(r"\d+(\.\d+)? (kg|g|mg)")
UNSAID = "not said in the rig file"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Keywords of what pynwb writes."""

    session: Mapping[str, object]
    subject: Mapping[str, str]
    electrode: Mapping[str, str]
    notes: tuple[str, ...] = ()
    """Of whoever recorded."""
    warnings: tuple[str, ...] = ()
    """What is missing or has another form than NWB asks for, a sentence each."""


def about(run: Run) -> About:
    """Of a run; a simulated one has a subject that is none, as NWB asks for one."""
    config = run.record.config
    search = f"Agents ({', '.join(config.agents)}) search images that drive"
    if run.rig is None:
        simulated = f"site {config.site} of the simulated neuron {config.neuron}. No animal, no electrode: rates are computed."
        description = f"{search} {simulated}"
        session = {"session_description": description, "keywords": ["visual neuron", "image synthesis", "simulation"]}
        subject = {
            "subject_id": "none",
            "description": f"No animal. A model of a neuron: {config.neuron}, noise {config.noise}.",
            "species": SYNTHETIC,
            "sex": "U",
            "age": ANY_AGE,
        }
        return About(session=session | _plain(run), subject=subject, electrode={})
    said = {name: {key: text.strip() for key, text in texts.items() if text.strip()} for name, texts in run.rig.about.items()}
    subject, warnings = _subject(said["subject"])
    description = f"{search} channel {run.sites[config.site]}, recorded live ({run.rig.acquisition})."
    session = {"session_description": description, "keywords": ["visual neuron", "image synthesis", "closed loop"]}
    return About(
        session=session | _plain(run) | _session(said["session"]),
        subject=subject,
        electrode=said["electrode"],
        notes=(said["session"]["notes"],) if "notes" in said["session"] else (),
        warnings=tuple(warnings),
    )


def _plain(run: Run) -> dict[str, object]:
    config = run.record.config
    generated = (
        f"Images of {config.generator}, {config.batch_size} a round, {config.budget} presentations an agent; objective "
        f"{config.objective}. What agents found is compared with natural images on fresh presentations."
    )
    return {"session_id": run.record.folder.resolve().name, "experiment_description": generated}


def _session(said: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {key: said[key] for key in ("institution", "lab", "protocol") if key in said}
    if "description" in said:
        found["experiment_description"] = said["description"]
    if "experimenter" in said:  # "Last, First; Last, First"
        found["experimenter"] = [name.strip() for name in said["experimenter"].split(";") if name.strip()]
    if "keywords" in said:
        found["keywords"] = [word.strip() for word in said["keywords"].split(",") if word.strip()]
    return found


def _subject(said: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What the rig file says of the animal, and what is wrong with it."""
    sex = said.get("sex", "U")
    found = {
        "subject_id": said.get("subject_id", "unknown").replace("/", "-"),
        "species": said.get("species", UNIDENTIFIED),
        "sex": SEXES.get(sex.lower(), sex),
        "age": said.get("age", ANY_AGE),
        "description": said.get("description", f"Description: {UNSAID}."),
    }
    missing = [key for key in ("subject_id", "species", "sex", "age") if key not in said]
    warnings = [f"[subject] {', '.join(missing)}: {UNSAID}, written as unknown"] if missing else []
    if "weight" in said:
        found["weight"] = said["weight"]
    forms = (
        ("species", bool(SPECIES.fullmatch(found["species"])), "a Latin binomial such as Macaca mulatta"),
        ("sex", found["sex"] in SEXES.values(), "M, F, O or U"),
        ("age", bool(AGE.fullmatch(found["age"])), "a duration such as P7Y or P7Y3M"),
        ("weight", "weight" not in found or bool(WEIGHT.fullmatch(found["weight"])), "a number and a unit such as 9.5 kg"),
    )
    warnings += [
        f"[subject] {key}: NWB expects {form}, the rig file says {said[key]!r}" for key, right, form in forms if not right
    ]
    return found, warnings
