"""The operations of `merlin-graphql status`: one finds the run, the other asks for all that is known of it."""

from __future__ import annotations

FIND = """
query FindRun($id: ID!, $workspaces: [String!]!, $directory: String!, $name: String!) {
  byId: run(id: $id) { id }
  byWorkspace: runs(filter: {workspace: {in: $workspaces}}, first: 2) { nodes { id workspace } }
  byDirectory: runs(filter: {workspace: {endsWith: $directory}}, first: 2) { nodes { id workspace } }
  study(name: $name) { runs(first: 1) { nodes { id } } }
}
"""
"""A run by whatever the user names. `$directory` begins with a `/`; the first run of a study is the latest."""

STATUS = """
query RunStatus($id: ID!, $listsTasks: Boolean!, $statuses: [TaskStatus!], $first: Int) {
  run(id: $id) {
    id
    workspace
    status
    isFinished
    study { name }
    launchedAt
    startedAt
    finishedAt
    duration
    hasFailed
    isStuck
    statusHistory { status at }
    progress { ...Counts }
    stepRuns {
      name
      queue
      usesSamples
      progress { ...Counts }
      runTime { mean deviation min max }
    }
    tasks(filter: {status: {in: $statuses}}, first: $first) @include(if: $listsTasks) {
      totalCount
      nodes { step path status returnCode restarts runTime workers }
    }
    queues
    workers {
      name
      physicalWorkers(first: 500) { nodes { name status isAlive lastSeenAt activeTasks processedTasks } }
    }
  }
  liveWorkers { name isAlive lastSeenAt activeTasks processedTasks physicalWorker { id } }
  queues { queue waiting consumers }
  database { sources staleSince serverVersion }
}

fragment Counts on Progress { total done failed fraction source asOf counts { status count } }
"""
"""What `merlin status`, `detailed-status`, `query-workers` and `queue-info` tell of a run together."""
