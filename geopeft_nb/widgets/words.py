"""Numbers as people read them: losses, durations and bytes."""

from __future__ import annotations

KIB, MIB, GIB = 2**10, 2**20, 2**30  # bytes


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


def gib(size: float) -> str:
    """Write bytes as GiB with about three digits."""
    return f"{_three_digits(size / GIB)} GiB"


def in_bytes(size: float) -> str:
    """Write bytes in the unit that suits them, with about three digits."""
    if size >= 1000 * MIB:
        return gib(size)
    if size >= 1000 * KIB:
        return f"{_three_digits(size / MIB)} MiB"
    return f"{_three_digits(size / KIB)} KiB" if size >= KIB else f"{size:.0f} B"


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"
