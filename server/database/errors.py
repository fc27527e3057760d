"""The errors of the database layer, as a tree.

DatabaseError                      an `ExpectedError`: server/errors.py
├── BackendError                   the store behind it
│   ├── BackendUnavailableError    it can't be reached, or refuses the login; trying again may help
│   │   └── WritesRefusedError     it answers, and refuses all writes for now; the message names no address
│   ├── WrongDatabaseError         it is reached, and is no Merlin database, or can't be served from
│   ├── UnknownOutcomeError        it was lost during a write: the change may or may not have been made
│   ├── ShuttingDownError          this server closes it soon, and begins no further change
│   ├── AlreadyBegunError          another execution of the same mutation, of one idempotency key, was first
│   └── OverdueError               the operation's time was over before the change was sent: nothing was changed
├── TooFarBehindError              a subscriber reads more slowly than changes can be kept for it
├── InvalidRequestError            the caller's arguments are invalid
│   └── UnknownFilterError         a filter key that the kind does not have
├── RefusedError                   a change that is not made; `field` names the argument to correct
│   ├── InvalidValueError          Merlin would misread the value, or it can't be stored
│   ├── AlreadyExistsError         there is an entity of that name already
│   ├── MissingPartnerError        another entity that the change names does not exist
│   ├── ConfirmationRequiredError  the change deletes so much that it needs `confirm`
│   ├── StillActiveError           Merlin still works on the run, or would again: it needs `force`
│   └── ConflictError              others kept changing the records, or what is stored would be lost
└── EntityNotFoundError            no entity has this identifier
    ├── StudyNotFoundError
    ├── RunNotFoundError
    └── WorkerNotFoundError
        ├── LogicalWorkerNotFoundError
        └── PhysicalWorkerNotFoundError

A message is one line, says what to do, and never holds a password. A new class needs a code for clients of GraphQL:
in schema/effects.py where a mutation is refused, in schema/errors.py for the rest.
"""

from server.errors import ExpectedError


class DatabaseError(ExpectedError):
    """The root of what the database layer raises on purpose."""


class BackendError(DatabaseError):
    pass


class BackendUnavailableError(BackendError):
    pass


class WritesRefusedError(BackendUnavailableError):
    pass


class WrongDatabaseError(BackendError):
    pass


class TooFarBehindError(DatabaseError):
    pass


class InvalidRequestError(DatabaseError):
    pass


class UnknownFilterError(InvalidRequestError):
    pass


class UnknownOutcomeError(BackendError):
    pass


class AlreadyBegunError(BackendError):
    pass


class OverdueError(BackendError):
    pass


class ShuttingDownError(BackendError):
    pass


class RefusedError(DatabaseError):
    def __init__(self, message: str, field: str | None = None) -> None:
        """`field` is the name that the model has for it."""
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
