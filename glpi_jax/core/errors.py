"""The exceptions that the command line turns into a single line and an exit code."""


class GlpiError(Exception):
    """Bad input, named: the message states the file or key and what to do about it."""


class Terminated(BaseException):
    """SIGTERM, as of a preempted machine: the same command would go on, or begin anew.

    Like KeyboardInterrupt it is no error that something could handle and go on.
    """


def speaks_of_others(error: BaseException) -> bool:
    """Whether an error of JAX is what a process hears when another one has ended."""
    return any(word in str(error) for word in ("Gloo", "NCCL", "oordination service"))
