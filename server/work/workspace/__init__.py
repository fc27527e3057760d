"""Source WORKSPACE_FILES: what Merlin's files in the workspaces of runs say of their tasks."""
