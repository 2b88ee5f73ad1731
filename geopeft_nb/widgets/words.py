"""Numbers as people read them: losses, durations and bytes."""

from __future__ import annotations

GIB, MIB = 2**30, 2**20  # bytes


def number(value: float | None) -> str:
    """Write a loss or score with three digits, and say plainly when it is no number."""
    if value is None:
        return "none yet"
    return f"{value:.3f}" if 0.001 <= abs(value) < 10 or value == 0 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Write seconds as m:ss or h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
