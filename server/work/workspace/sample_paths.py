"""The directories of samples below a step: at most so many in one, numbered, with as many digits as that number has.

The rule of Merlin's `SampleIndex`.
"""

from __future__ import annotations

from dataclasses import dataclass

_MAX_LEVELS = 64


@dataclass(frozen=True, slots=True)
class SamplePaths:
    count: int
    sizes: tuple[int, ...]
    """How many samples a directory of each level has, from the outermost on. Empty for a single sample."""
    level_max_dirs: int

    @property
    def digits(self) -> int:
        return len(str(self.level_max_dirs))

    @classmethod
    def of(cls, count: int, level_max_dirs: int) -> SamplePaths:
        """Raises ValueError for a maximum with which Merlin would never end."""
        sizes = [1]
        while sizes[0] < count:
            if level_max_dirs < 2 or len(sizes) > _MAX_LEVELS:  # noqa: PLR2004 - one a level is no tree
                raise ValueError(f"level_max_dirs: {level_max_dirs}")
            sizes.insert(0, sizes[0] * level_max_dirs)
        return cls(count, tuple(sizes[1:]), level_max_dirs)

    def path(self, sample: int) -> str:
        """Such as `03/14`; empty for a single sample."""
        names = []
        for size in self.sizes:
            number, sample = divmod(sample, size)
            names.append(str(number).zfill(self.digits))
        return "/".join(names)

    def child(self, level: int, first: int, end: int, name: str) -> tuple[int, int] | None:
        """The samples, first and end, of a directory in that of a level and of these samples; None if it has none."""
        if level >= len(self.sizes) or not (name.isascii() and name.isdecimal() and len(name) < 20):  # noqa: PLR2004
            return None
        number, size = int(name), self.sizes[level]
        start = first + number * size
        if start >= end or str(number).zfill(self.digits) != name:
            return None
        return start, min(start + size, end)

    def sample(self, path: str) -> int | None:
        """The sample of a path; None if it is no sample's."""
        if not path:
            return None if self.sizes or not self.count else 0
        first, end = 0, self.count
        names = path.split("/")
        if len(names) != len(self.sizes):
            return None
        for level, name in enumerate(names):
            found = self.child(level, first, end, name)
            if found is None:
                return None
            first, end = found
        return first
