"""The one exception family that the command line turns into a single line and exit code 2."""


class GlpiError(Exception):
    """Bad input, named: the message states the file or key and what to do about it."""
