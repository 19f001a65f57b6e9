"""The exceptions that the command line turns into a single line and an exit code."""


class GlpiError(Exception):
    """Bad input, named: the message states the file or key and what to do about it."""


class Terminated(BaseException):
    """SIGTERM, as of a preempted machine: the same command would go on, or begin anew.

    Like KeyboardInterrupt it is no error that something could handle and go on.
    """
