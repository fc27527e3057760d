"""The directories of samples are Merlin's."""

from __future__ import annotations

import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from merlin.common.sample_index import uniform_directories
from merlin.common.sample_index_factory import create_hierarchy

from server.work.workspace.sample_paths import SamplePaths


def merlins_paths(count: int, level_max_dirs: int) -> list[str]:
    """As `expand_tasks_with_samples` makes them."""
    sizes = uniform_directories(count, bundle_size=1, level_max_dirs=level_max_dirs)
    digits = len(str(level_max_dirs))
    index = create_hierarchy(count, bundle_size=1, directory_sizes=sizes, root="", n_digits=digits)
    return [os.path.dirname(index.get_path_to_sample(sample)) for sample in range(count)]  # noqa: PTH120 - as Merlin


@given(st.integers(1, 400), st.integers(2, 30))
def test_every_sample_lies_where_merlin_puts_it(count: int, level_max_dirs: int) -> None:
    """For any number of samples and of directories a level; and each path leads back to its sample."""
    paths = SamplePaths.of(count, level_max_dirs)
    mine = [paths.path(sample) for sample in range(count)]
    assert mine == merlins_paths(count, level_max_dirs)
    assert [paths.sample(path) for path in mine] == list(range(count))


@given(st.integers(0, 50), st.integers(2, 12), st.text("0123456789/x", max_size=8))
def test_no_other_path_is_a_samples(count: int, level_max_dirs: int, path: str) -> None:
    """Neither one with other digits, nor one beyond the last sample."""
    paths = SamplePaths.of(count, level_max_dirs)
    mine = [paths.path(sample) for sample in range(count)]
    assert (paths.sample(path) is not None) == (path in mine)


def test_a_level_of_one_directory_is_refused() -> None:
    """Merlin itself would never end."""
    with pytest.raises(ValueError, match="level_max_dirs"):
        SamplePaths.of(2, 1)
