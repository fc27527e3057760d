"""The expanded specification of a run, `merlin_info/<spec>.expanded.yaml`: its steps, parameters and samples."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

SUFFIX: Final = ".expanded.yaml"
MAX_SIZE = 2**22
"""Bytes."""
_MAX_VALUES = 200_000
"""Values in a step, and values of all parameters: an alias in YAML is a short way to write many."""
_MAX_DEPTH = 100
_SAMPLE_TOKENS = ("MERLIN_SAMPLE_ID", "MERLIN_SAMPLE_PATH", "merlin_sample_id", "merlin_sample_path")
_PARAMETER = re.compile(r"\$\(([^()]*?)(?:\.\w+)?\)")
"""Maestro's: also `$(NAME.label)`."""
_WORKSPACE = re.compile(r"\$\(([^()\s]+)\.workspace\)")
_ALL_COMBINATIONS = re.compile(r"_\*|\*")
_DEFAULT_LEVEL_MAX_DIRS = 25
_SCALARS = (str, int, float, bool, type(None))


class SpecError(Exception):
    """A specification that Merlin can't have written; the message says why."""


@dataclass(frozen=True, slots=True)
class StepSpec:
    name: str
    description: str | None
    depends_on: tuple[str, ...]
    """As written, such as `sim_*`."""
    queue: str | None
    command: str | None
    parameters: frozenset[str]
    """Those that it uses: it names them, or a step that it depends on does, or one whose directory it names."""
    uses_samples: bool


@dataclass(frozen=True, slots=True)
class Spec:
    text: str
    steps: tuple[StepSpec, ...]
    parameter_values: Mapping[str, Sequence[Any]]
    parameter_labels: Mapping[str, Sequence[str]]
    """A label for each value."""
    sample_columns: tuple[str, ...] | None
    """None without samples."""
    samples_file: str | None
    level_max_dirs: int

    @property
    def combinations(self) -> int:
        """Of the parameters: their first values, their second ones, and so on."""
        return max(map(len, self.parameter_values.values()), default=0)


def parse(text: str) -> Spec:
    """Raises `SpecError`."""
    try:
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"it is no YAML: {type(error).__name__}") from None
    if not isinstance(content, dict):
        raise SpecError("it is no mapping")
    values, labels = _parameters(content.get("global.parameters"))
    merlin = content.get("merlin")
    samples = merlin.get("samples") if isinstance(merlin, dict) else None
    if not isinstance(samples, dict):
        samples = None
    columns = None if samples is None else _texts(samples.get("column_labels"))
    level_max_dirs = _DEFAULT_LEVEL_MAX_DIRS if samples is None else samples.get("level_max_dirs")
    file = None if samples is None else samples.get("file")
    return Spec(
        text,
        _steps(content.get("study"), values, columns or ()),
        values,
        labels,
        columns,
        file if isinstance(file, str) else None,
        level_max_dirs if isinstance(level_max_dirs, int) else _DEFAULT_LEVEL_MAX_DIRS,
    )


def _parameters(content: object) -> tuple[dict[str, tuple[Any, ...]], dict[str, tuple[str, ...]]]:
    values: dict[str, tuple[Any, ...]] = {}
    labels: dict[str, tuple[str, ...]] = {}
    left = _MAX_VALUES
    for name, parameter in content.items() if isinstance(content, dict) else ():
        stored = parameter.get("values") if isinstance(parameter, dict) else None
        if not isinstance(name, str) or not isinstance(stored, list):
            raise SpecError(f"the parameter {str(name)[:50]!r} has no values")
        left -= len(stored)
        if left < 0:
            raise SpecError("it has too many values of parameters")
        values[name] = tuple(map(_scalar, stored))
        labels[name] = _labels(name, parameter.get("label"), values[name])
    if len(set(map(len, values.values()))) > 1:
        raise SpecError("its parameters have different numbers of values")
    return values, labels


def _labels(name: str, label: object, values: Sequence[Any]) -> tuple[str, ...]:
    """A list comes from a generator of parameters."""
    if isinstance(label, list):
        if len(label) != len(values):
            raise SpecError(f"the parameter {name[:50]!r} has not as many labels as values")
        return tuple(str(_scalar(each)) for each in label)
    template = label if isinstance(label, str) and label else f"{name}.%%"
    return tuple(template.replace("%%", str(value)) for value in values)


def _scalar(value: object) -> Any:
    """A date of YAML becomes text."""
    if isinstance(value, (list, dict, set)):
        raise SpecError("a parameter has a value that is no scalar")
    return value if isinstance(value, _SCALARS) else str(value)


def _steps(content: object, parameters: Collection[str], columns: Collection[str]) -> tuple[StepSpec, ...]:
    if not isinstance(content, list):
        raise SpecError("it has no steps")
    found: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    for step in content:
        name = step.get("name") if isinstance(step, dict) else None
        if not isinstance(name, str) or not name:
            raise SpecError("a step has no name")
        run = step.get("run")
        found[name] = step, run if isinstance(run, dict) else {}
    used = _used_parameters(found, parameters)
    labels = (*columns, *_SAMPLE_TOKENS)
    return tuple(
        StepSpec(
            name=name,
            description=_text(step.get("description")),
            depends_on=_texts(run.get("depends")),
            queue=_text(run.get("task_queue")),
            command=_text(run.get("cmd")),
            parameters=used[name],
            uses_samples=any(
                f"$({label})" in text
                for text in (_text(run.get("cmd")), _text(run.get("restart")))
                if text
                for label in labels
            ),
        )
        for name, (step, run) in found.items()
    )


def _used_parameters(
    steps: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]], parameters: Collection[str]
) -> dict[str, frozenset[str]]:
    """Maestro's rule: named anywhere in a step, or used by one that it depends on, but as `step_*`, or names the
    directory of, as `$(step.workspace)`.
    """
    own: dict[str, set[str]] = {}
    parents: dict[str, set[str]] = {}
    for name, (step, run) in steps.items():
        texts = list(_texts_in(step))
        own[name] = {found for text in texts for found in _PARAMETER.findall(text)} & set(parameters)
        depends = _texts(run.get("depends"))
        funnels = {_ALL_COMBINATIONS.sub("", parent) for parent in depends if "*" in parent}
        commands = (_text(run.get("cmd")) or "", _text(run.get("restart")) or "")
        named = {each for command in commands for each in _WORKSPACE.findall(command)}
        parents[name] = ({parent for parent in depends if "*" not in parent} | (named - funnels)) & steps.keys()
    changed = True
    while changed:  # at most as often as the longest chain of steps is long
        changed = False
        for name, of_step in own.items():
            inherited = set().union(*(own[parent] for parent in parents[name]))
            changed |= not inherited <= of_step
            of_step.update(inherited)
    return {name: frozenset(of_step) for name, of_step in own.items()}


def _texts_in(content: object) -> Iterable[str]:
    """Raises `SpecError` for a step with too many values, which aliases can write in a few lines."""
    stack, left = [(content, 0)], _MAX_VALUES
    while stack:
        value, depth = stack.pop()
        left -= 1
        if left < 0 or depth > _MAX_DEPTH:
            raise SpecError("a step is too large")
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list):
            stack += [(each, depth + 1) for each in value]


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
