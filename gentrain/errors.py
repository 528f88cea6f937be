"""What can end a run, each with its exit code. An error's text is one line: what was found, what was expected, the
nearest fix."""

import errno


class GentrainError(Exception):
    """Base of the errors that the launcher prints as one line instead of a traceback."""

    exit_code = 1


class ConfigError(GentrainError):
    """The config asks for something that cannot be."""

    exit_code = 2


class Diverged(GentrainError):
    """Too many non-finite updates in a row; none of them was applied."""

    exit_code = 3

    def __init__(self, text: str, since: int = 0):
        """since: the first step whose parameters are spoiled."""
        super().__init__(text)
        self.since = since


class DataError(GentrainError):
    """The data is missing, damaged or too short."""

    exit_code = 4


class DamagedExample(DataError):
    """One example cannot be read; data.max_damaged may let it be left out."""


class CheckpointError(GentrainError):
    """Checkpoints exist but none of them can be used, or none can be written."""

    exit_code = 5


class ReportError(GentrainError):
    """All is trained and saved, but its report cannot be written."""


class WorkdirInUse(GentrainError):
    """Another process trains in the same workdir."""

    exit_code = 6


class Stopped(GentrainError):
    """A signal asked the run to stop; its state is saved and the same command goes on from there."""

    exit_code = 42


class Corrupted(GentrainError):
    """Devices hold different copies of what should be the same; the same command goes on from a sound checkpoint."""

    exit_code = 42


class LostPeer(GentrainError):
    """Another process of the run died or hangs; the same command on all of them goes on from the last checkpoint."""

    exit_code = 42


FULL = (errno.ENOSPC, errno.EDQUOT)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)


def explain(error: BaseException) -> GentrainError | None:
    """The error as one of these, where it is one, or tells of a full disk or of a path without access."""
    if isinstance(error, GentrainError):
        return error
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL:
        return CheckpointError(
            f"{error}; make room and run the same command again: it goes on from the last checkpoint"
        )
    return ConfigError(f"{error}; make it accessible, or choose another path") if number in NO_ACCESS else None


def first_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
