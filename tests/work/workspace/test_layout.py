"""Which tasks a run will have, held against Maestro's staging and against a real run."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database.files.workspace_roots import open_below
from server.work.workspace.layout import Layout
from server.work.workspace.spec import Spec, SpecError, parse
from server.work.workspace.specification_files import SpecificationFiles
from tests.support.merlin_process import Merlin

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it loads its adapters in an old way
    from maestrowf.datastructures.core import ParameterGenerator, Study, StudyEnvironment
    from maestrowf.datastructures.core.study import StudyStep

SAMPLES = Path(__file__).parents[2] / "data" / "merlin_live"
SPEC = """
description: {{name: many kinds, description: all kinds of steps}}
env: {{variables: {{OUTPUT_PATH: {output}}}}}
global.parameters:
  TEMP: {{values: [300, 400], label: TEMP.%%}}
  KIND: {{values: [a b, c+d], label: K %%}}
study:
  - {{name: prep, description: none, run: {{cmd: echo begins}}}}
  - name: sim
    description: samples and parameters
    run:
      cmd: |
        echo $(TEMP) $(X)
        if [ $(MERLIN_SAMPLE_ID) = 1 ]; then exit $(MERLIN_SOFT_FAIL); fi
        if [ $(MERLIN_SAMPLE_ID) = 2 ]; then exit $(MERLIN_RESTART); fi
      restart: echo again $(TEMP)
      depends: [prep]
      max_retries: 2
      retry_delay: 0.1
  - {{name: inherits, description: by dependency, run: {{cmd: echo $(MERLIN_SAMPLE_ID), depends: [sim]}}}}
  - {{name: told, description: uses $(KIND), run: {{cmd: echo x, depends: [prep]}}}}
  - {{name: looks, description: by directory, run: {{cmd: ls $(sim.workspace), depends: [sim]}}}}
  - {{name: all, description: of all, run: {{cmd: ls $(sim.workspace) $(MERLIN_PATHS_ALL), depends: [sim_*, told_*]}}}}
merlin:
  samples:
    generate: {{cmd: "printf '1,2\\\\n# none\\\\n\\\\n3,4\\\\n5,6\\\\n7,8' > $(MERLIN_INFO)/samples.csv"}}
    file: $(MERLIN_INFO)/samples.csv
    column_labels: [X, Y]
    level_max_dirs: {level}
"""


def paths_of(layout: Layout) -> list[str]:
    return [layout.path_of(index) for index in range(layout.count)]


def layout_in(workspace: Path) -> Layout:
    told: list[str] = []
    directory = open_below([workspace.parent], str(workspace))
    layout = SpecificationFiles([workspace.parent], told.append).layout(directory)
    assert told == []
    assert layout is not None
    return layout


@pytest.mark.parametrize("level", [2, 25])
def test_a_real_run_has_the_tasks_that_were_foreseen(tmp_path: Path, level: int) -> None:
    """Whether its steps use parameters themselves or by others, and samples or none."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(output=tmp_path / "studies", level=level))
    with Merlin(tmp_path) as merlin:
        workspace = merlin.run_local(spec)
    layout = layout_in(workspace)
    found = {str(file.parent.relative_to(workspace)) for file in workspace.rglob("MERLIN_STATUS.json")}
    assert sorted(paths_of(layout)) == sorted(found)
    assert layout.sample_count == 4
    assert [layout.index_of(path) for path in paths_of(layout)] == list(range(layout.count))
    scripts = {group.directory: group.log_name for group in layout.groups}
    for directory, name in scripts.items():
        assert list((workspace / directory).rglob(f"{name}.sh")), directory


def test_the_board_is_understood() -> None:
    """Its specification as Merlin expanded it."""
    spec = parse((SAMPLES / "board.expanded.yaml").read_text())
    assert [step.name for step in spec.steps] == ["prep", "sim", "flaky", "post"]
    prep, sim, _, post = spec.steps
    assert (prep.description, prep.queue, prep.command) == ("no parameters", "prep_q", "echo preparing; sleep 2")
    assert (sim.parameters, sim.uses_samples, sim.depends_on) == (frozenset({"TEMP"}), True, ("prep",))
    assert (post.parameters, post.uses_samples, post.depends_on) == (frozenset(), False, ("sim_*", "flaky"))
    assert spec.parameter_values == {"TEMP": (300, 400)}
    assert (spec.sample_columns, spec.level_max_dirs) == (("X", "Y"), 3)
    layout = Layout(spec, 7)
    assert layout.count == 17
    assert paths_of(layout)[1] == "sim/TEMP.300/0/0"


parameters = st.dictionaries(st.sampled_from("PQR"), st.just(0), max_size=3)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Steps that name parameters, depend on earlier steps, on all their combinations, or name their directories."""
    names = sorted(draw(st.sets(st.sampled_from("PQR"), min_size=1)))
    labels = draw(st.sampled_from(["%%", "v.%%", "x %%", "a/%%", None]))
    values = draw(st.lists(st.sampled_from([1, 2.5, "one two", "é"]), min_size=1, max_size=3, unique=True))
    steps: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 5))):
        earlier = [step["name"] for step in steps]
        depends = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
        used = draw(st.lists(st.sampled_from([*names, *(f"{name}.label" for name in names)]), max_size=2))
        seen = [name for name in depends if draw(st.booleans())]
        command = " ".join(["echo", *(f"$({name})" for name in used), *(f"$({name}.workspace)" for name in seen)])
        starred = [f"{name}_*" if draw(st.booleans()) else name for name in depends]
        run = {"cmd": command, "restart": "", "depends": starred}
        steps.append({"name": f"step_{number}", "description": draw(st.sampled_from(["d", "$(P)"])), "run": run})
    of_labels = {name: {"values": values, **({} if labels is None else {"label": f"{name}{labels}"})} for name in names}
    return {"study": steps, "global.parameters": of_labels}


def maestros_paths(content: Mapping[str, Any], output: str) -> set[str]:
    generator = ParameterGenerator()
    for name, parameter in content["global.parameters"].items():
        generator.add_parameter(name, parameter["values"], parameter.get("label"))
    steps: Sequence[StudyStep] = []
    for step in content["study"]:
        made = StudyStep()
        made.name, made.description = step["name"], step["description"]
        made.run.update(step["run"])
        steps = [*steps, made]
    study = Study("s", {"name": "s", "description": ""}, StudyEnvironment(), generator, steps, output)
    study.setup_environment()
    study.configure_study()
    _, graph = study.stage()
    return {str(Path(record.workspace.value).relative_to(output)) for record in graph.values.values() if record}


@settings(max_examples=60, deadline=None)
@given(specs())
def test_combinations_are_maestros(content: dict[str, Any]) -> None:
    """For steps that inherit parameters in all ways."""
    with tempfile.TemporaryDirectory() as output:
        assert set(paths_of(Layout(parse(yaml.safe_dump(content)), None))) == maestros_paths(content, output)


def test_a_step_of_samples_has_no_tasks_as_long_as_nobody_knows_how_many() -> None:
    """Then the number of all tasks is not known."""
    spec = parse((SAMPLES / "board.expanded.yaml").read_text())
    layout = Layout(spec, None)
    assert (layout.count, layout.is_complete) == (3, False)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "study: 7",
        "study: [{run: {cmd: x}}]",
        "a: b: c",
        "[" * 5000,
        "study: []\nglobal.parameters: {P: {values: 7}}",
        "study: []\nglobal.parameters: {P: {values: [1]}, Q: {values: [1, 2]}}",
        f"{BOMB}study: []\nglobal.parameters: {{P: {{values: [*i]}}}}",
        f"{BOMB}study: [{{name: s, description: *i}}]",
        "study: [{name: s, run: {cmd: &x [*x]}}]",
        "!!python/object/apply:os.system [true]",
    ],
)
def test_a_hostile_specification_is_refused(text: str) -> None:
    """At once, with a reason."""
    with pytest.raises(SpecError):
        parse(text)


def spec_of(**changes: Any) -> Spec:
    return parse(yaml.safe_dump({"study": [{"name": "s", "run": {"cmd": "$(MERLIN_SAMPLE_ID)"}}], **changes}))


def test_too_many_tasks_are_refused() -> None:
    """Before there is any memory for them."""
    with pytest.raises(SpecError, match="tasks"):
        Layout(spec_of(), 10**12)
