"""The specifications and samples of the sample data's runs, as Merlin leaves them in `merlin_info`."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import yaml

from server.database.demo_data import Study
from server.database.json_text import read_json
from server.database.models import RunModel

_MAX_COMBINATIONS = 3
"""Of parameters, so that there are few files."""
_COLUMNS = ("DRIVE", "OFFSET")


def specification(run: RunModel, study: Study) -> Mapping[str, Any]:
    """What Merlin expands the file of the study to.

    The steps up to the sampled one and those after it use the parameters; the last one collects what all have given.
    """
    found: dict[str, Any] = {
        "description": {"name": study.name, "description": f"Sample data: {study.name}"},
        "study": [_step(study, number) for number in range(len(study.steps))],
        "global.parameters": _combinations(run, study),
        "merlin": {},
    }
    if study.samples:
        found["merlin"] = {"samples": {"file": samples_file(run), "column_labels": list(_COLUMNS)}}
    return found


def specification_text(run: RunModel, study: Study) -> str:
    return yaml.dump(specification(run, study), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)


def samples_file(run: RunModel) -> str:
    return f"{run.workspace}/merlin_info/samples.npy"


def samples(run: RunModel, study: Study) -> Sequence[Mapping[str, float]]:
    """The values of each by column."""
    rng = Random(run.id)  # noqa: S311 - sample data, the same each time; no secret
    return [{name: round(rng.random(), 4) for name in _COLUMNS} for _ in range(study.samples)]


def samples_content(run: RunModel, study: Study) -> bytes:
    """A file of numpy's with a row for each sample."""
    values = [value for row in samples(run, study) for value in row.values()]
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({study.samples}, {len(_COLUMNS)}), }}"
    head = header.ljust(117).encode() + b"\n"  # with what stands before it, 128 bytes, as numpy aligns it
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + struct.pack(f"<{len(values)}d", *values)


def _step(study: Study, number: int) -> Mapping[str, Any]:
    name = study.steps[number]
    run: dict[str, Any] = {"cmd": _command(study, name), "task_queue": study.queues[number], "max_retries": 30}
    if number > 0:
        before = study.steps[number - 1]
        run["depends"] = [f"{before}_*" if name == study.steps[-1] else before]
    return {"name": name, "description": name.replace("_", " ").capitalize(), "run": run}


def _command(study: Study, step: str) -> str:
    options = [f"--{name.lower().replace('_', '-')} $({name})" for name in study.parameters if step == study.steps[0]]
    if step == study.sampled:
        options += [f"--{name.lower()} $({name})" for name in _COLUMNS]
    return " ".join([step, *options])


def _combinations(run: RunModel, study: Study) -> Mapping[str, Any]:
    """Each value with each other one, the first ones of these: in a specification, all have as many values."""
    stored = read_json(run.parameters)
    values: Sequence[Sequence[Any]] = [_values(stored.get(name), study.parameters[name]) for name in study.parameters]
    chosen = list(itertools.islice(itertools.product(*values), _MAX_COMBINATIONS))
    return {
        name: {"values": [combination[at] for combination in chosen], "label": f"{name}.%%"}
        for at, name in enumerate(study.parameters)
    }


def _values(stored: object, otherwise: Sequence[Any]) -> Sequence[Any]:
    values = stored.get("values") if isinstance(stored, dict) else None
    return values if isinstance(values, list) and values else otherwise
