"""The error type for users to read, and the exit statuses."""

import sys
from collections.abc import Callable

from dpmi.base.redaction import redacted

# 75 is EX_TEMPFAIL of sysexits.h: try again.
EXIT_FAILED_RUNS, EXIT_BAD_INPUT, EXIT_RESUMABLE, EXIT_INTERRUPTED = 1, 2, 75, 130


class UserError(Exception):
    """Bad input, reported in one line: what is wrong, where, what is allowed, what to do.

    The doors (``python -m dpmi.X``) print it without a stack trace and exit with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redacted(" ".join(message.split())))


def status_of(work: Callable[[], int]) -> int:
    """Do the work of a command, and return its exit status; bad input is one line, as is Ctrl-C."""
    try:
        return work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def cause_for_user(error: BaseException) -> UserError | None:
    """The UserError that other libraries wrapped in errors of their own, if there is one."""
    at: BaseException | None = error
    while at is not None and not isinstance(at, UserError):
        at = at.__cause__ or at.__context__
    return at
