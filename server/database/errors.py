"""The error tree of the database layer.

DatabaseError
├── BackendError                 the store behind it
│   ├── BackendUnavailableError  can't be reached, or refuses the login; trying again may help
│   └── WrongDatabaseError       reached, but it is no Merlin database, or can't be served from
├── InvalidRequestError          the caller's arguments can't be meant
│   └── UnknownFilterError       a filter key that the kind does not have
└── EntityNotFoundError          no entity has this identifier
    ├── StudyNotFoundError
    ├── RunNotFoundError
    └── WorkerNotFoundError
        ├── LogicalWorkerNotFoundError
        └── PhysicalWorkerNotFoundError

A message is one line, says what to do, and never holds a password.
"""


class DatabaseError(Exception):
    """The root of what the database layer raises on purpose."""


class BackendError(DatabaseError):
    pass


class BackendUnavailableError(BackendError):
    pass


class WrongDatabaseError(BackendError):
    pass


class InvalidRequestError(DatabaseError):
    pass


class UnknownFilterError(InvalidRequestError):
    pass


class EntityNotFoundError(DatabaseError):
    pass


class StudyNotFoundError(EntityNotFoundError):
    pass


class RunNotFoundError(EntityNotFoundError):
    pass


class WorkerNotFoundError(EntityNotFoundError):
    pass


class LogicalWorkerNotFoundError(WorkerNotFoundError):
    pass


class PhysicalWorkerNotFoundError(WorkerNotFoundError):
    pass
