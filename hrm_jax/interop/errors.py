"""The one error of everything that reads or writes foreign checkpoints."""


class CheckpointFormatError(ValueError):
    """A checkpoint is damaged, unsafe, or does not fit the model it should fill.

    The message names the tensor or file concerned, what it must be, what it is, and how to
    go on.
    """
