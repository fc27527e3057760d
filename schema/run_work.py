"""What resolvers read of the work of a run. Whoever asks keeps the run observed."""

from __future__ import annotations

from schema.context import Info
from server.database.entities import RunEntity
from server.database.workspaces import Progress, Workspace


def workspace_of(info: Info, run: RunEntity) -> Workspace | None:
    """The content of its workspace, as it was read last; None if it was not, or not yet: see `Context.unread`."""
    known = run.observation.workspace
    reader = info.context.database.observations.reader
    if known is not None:
        reader.note_interest(run.id)
    elif reader.can_read(run.id):
        if info.context.unread is None:
            reader.note_interest(run.id)
        else:
            info.context.unread.add(run.id)
    return known


def progress_of(info: Info, run: RunEntity) -> Progress | None:
    """The progress of its tasks, also where no file of it can be read."""
    workspace = workspace_of(info, run)
    known = run.progress
    return workspace.progress if known is None and workspace is not None else known
