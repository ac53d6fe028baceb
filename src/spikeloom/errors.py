"""Everything the command line shows as one sentence instead of a traceback."""


class SpikeloomError(Exception):
    """The message says what was expected, what came and how to mend it."""

    exit_code = 1


class DownloadError(SpikeloomError):
    """A file could not be fetched, or is not the file that was pinned."""


class StackError(SpikeloomError):
    """The local stack could not do what was asked of it."""


class ProcessDied(StackError):
    """A process of the stack ended although nobody asked it to."""


class NotRunning(StackError):
    """There is no stack in this folder."""

    exit_code = 3
