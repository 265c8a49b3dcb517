"""Numbers of things, as sentences say them."""


def counted(count: float, noun: str) -> str:
    """`count` and the noun, which takes an s unless there is one: 1 task, 2,000 tasks, 0.5 seconds."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {noun}" if count == 1 else f"{number} {noun}s"
