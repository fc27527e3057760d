"""The error tree of the database layer.

DatabaseError
├── BackendError                 the store behind it
│   ├── BackendUnavailableError  can't be reached, or refuses the login; trying again may help
│   └── WrongDatabaseError       reached, but it is no Merlin database, or can't be served from
│   └── UnknownOutcomeError      lost while it was writing: what was asked for may or may not have been done
├── InvalidRequestError          the caller's arguments are invalid
│   └── UnknownFilterError       a filter key that the kind does not have
├── RefusedError                 a change that is not made; `field` names the argument that is to blame
│   ├── InvalidValueError        a value that Merlin would misread, or that can't be stored
│   ├── AlreadyExistsError       an entity of that name is there already
│   ├── MissingPartnerError      another entity that the change names is not there
│   ├── ConfirmationRequiredError
│   ├── StillActiveError         Merlin still works on it, or would again: only `force` does it
│   └── ConflictError            others kept interfering, or what is stored can't be changed without loss
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


class UnknownOutcomeError(BackendError):
    pass


class RefusedError(DatabaseError):
    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidValueError(RefusedError):
    pass


class AlreadyExistsError(RefusedError):
    pass


class MissingPartnerError(RefusedError):
    pass


class ConfirmationRequiredError(RefusedError):
    pass


class StillActiveError(RefusedError):
    pass


class ConflictError(RefusedError):
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
