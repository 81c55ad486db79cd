"""The check of backbones that read sequences up to a fixed length."""


def check_length(length: int, max_seq_length: int, name: str) -> None:
    """Raise `ValueError` if a sequence is longer than a backbone can read.

    Args:
        length: positions of the sequence.
        max_seq_length: longest sequence that the backbone can read.
        name: of the backbone, for the message.

    Raises:
        ValueError: if it is longer.
    """
    if length > max_seq_length:
        raise ValueError(
            f"sequences of {length} positions exceed max_seq_length={max_seq_length}: "
            f"cut them to the latest, or build {name} with a larger max_seq_length"
        )
