"""Training speed from the logs of toolkits that time themselves."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarking.peers.peer import PeerError


def tokens_per_s(lines: Sequence[tuple[float, float]], warmup: int, updates: int) -> float:
    """Tokens per second of the last `updates` updates.

    Args:
        lines: of each update the target tokens, and target tokens per second; seconds are their ratio.
        warmup: updates that do not count.
        updates: those that follow.

    Raises:
        PeerError: there are more or fewer lines, or a speed is 0.
    """
    if len(lines) != warmup + updates:
        raise PeerError(f"its log has {len(lines)} updates, not {warmup + updates}")
    timed = lines[warmup:]
    if any(speed <= 0 for _, speed in timed):
        raise PeerError("its log has updates with 0 tokens per second")
    return sum(tokens for tokens, _ in timed) / sum(tokens / speed for tokens, speed in timed)
