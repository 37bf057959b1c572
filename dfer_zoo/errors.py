"""The errors a person can meet and correct."""


class InputError(ValueError):
    """An input that a person can correct.

    The message shows the value given, the values allowed and the next step. The command line prints it without a
    traceback and exits with status 2.
    """


class DataError(InputError):
    """A dataset on disk that is missing, incomplete or not in its documented layout."""


class CheckpointError(InputError):
    """A checkpoint or weights file that is missing, damaged, or belongs to something else."""
