"""What can end a run, each with its exit code. An error's text is one line: what was found, what was expected, the
nearest fix."""


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


class CheckpointError(GentrainError):
    """Checkpoints exist but none of them can be used."""

    exit_code = 5


class WorkdirInUse(GentrainError):
    """Another process trains in the same workdir."""

    exit_code = 6


class Stopped(GentrainError):
    """A signal asked the run to stop; its state is saved and the same command goes on from there."""

    exit_code = 42


class LostPeer(GentrainError):
    """Another process of the run died or hangs; the same command on all of them goes on from the last checkpoint."""

    exit_code = 42
