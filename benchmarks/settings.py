"""How much is measured: all of it, or with `--quick` as much as shows that the benchmark works."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Settings(NamedTuple):
    """`peer_pythons` are interpreters in which other libraries are installed, besides the one that runs this."""

    quick: bool = False
    peer_pythons: Sequence[str] = ()

    def rounds(self, count: int) -> int:
        return max(3, count // 10) if self.quick else count

    def lengths(self) -> tuple[int, ...]:
        """Session lengths at which an append is measured; the first is what the others are compared with."""
        return (100, 1_000, 10_000) if self.quick else (100, 1_000, 10_000, 100_000)

    def sessions(self) -> int:
        """How many sessions the large folder has."""
        return 1_000 if self.quick else 10_000

    def peer_lengths(self) -> tuple[int, ...]:
        return (100,) if self.quick else (100, 1_000, 10_000)

    def peer_sessions(self) -> int:
        return 100 if self.quick else 1_000
