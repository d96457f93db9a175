"""What goes wrong while building, in words for the person at the console."""


class BuildError(ValueError):
    """A source, an option or the output folder is unusable; the text says what to do."""


def require(condition: bool, message: str) -> None:
    """Raises BuildError(message) unless the condition holds."""
    if not condition:
        raise BuildError(message)
