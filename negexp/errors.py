"""The one exception that means: what the user gave cannot be used."""


class InputError(Exception):
    """The user's input is wrong; the message is one line naming the key or file:line, the value and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
