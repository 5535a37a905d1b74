"""The exceptions that the command line turns into one line and an exit code."""


class InputError(Exception):
    r"""The user's input is wrong; the message is one line naming the key or file:line, the value and the remedy.

    >>> str(InputError("pairs.csv:7: empty counter;\n  give it a text"))
    'pairs.csv:7: empty counter; give it a text'
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class JobsFailedError(Exception):
    """Some jobs of a sweep failed: by the user's input (exit code 2), or else (1)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code
