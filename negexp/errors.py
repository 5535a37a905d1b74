"""Exceptions that the command line reports in one line, with an exit code."""


class InputError(Exception):
    r"""The user's input is wrong. The message is one line with the key or file:line, the value and the remedy.

    >>> str(InputError("pairs.csv:7: empty counter;\n  give it a text"))
    'pairs.csv:7: empty counter; give it a text'
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class JobsFailedError(Exception):
    """Some jobs of a sweep did not finish.

    The exit code is 1 for a defect of negexp or a killed process, else 2 for wrong input, else 143 for a signal.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code
