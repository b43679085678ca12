"""Look for damage in each file once, and keep the result on disk."""

from collections.abc import Mapping

import numpy as np

from tfxfer.cache import Cache
from tfxfer.inputs import Damage, Kind


class Checked:
    """Runs `Kind.find_damage` once for each content, and stores which files have no damage.

    Args:
        kind: what the files are.
        cache: where it is stored, or None to store nothing.
    """

    def __init__(self, kind: Kind, cache: Cache | None):
        self.kind, self.key = kind, kind.DAMAGE_KEY
        self.cache = cache
        self.known: Mapping[str, float] = {}
        self.new: dict[str, float] = {}
        if cache is not None and self.key and (digests := cache.digests(self.key)):
            verdicts = cache.rows(self.key, digests)[:][:, 0].tolist()
            self.known = dict(zip(digests, verdicts, strict=True))

    def find(self, data: bytes, digest: str) -> Damage | None:
        """Return the damage of a file, or None if the cache knows that it has none.

        It may be called from several threads.

        Args:
            digest: the SHA-256 of `data`.
        """
        if not self.key or not self.kind.can_hide_damage(data) or self.known.get(digest) == 0:
            return None
        damage = self.kind.find_damage(data)
        if digest not in self.known:
            self.new[digest] = float(damage is not None)
        return damage

    def save(self) -> None:
        """Write the new results to the cache."""
        if self.cache is not None and self.key and self.new:
            rows = np.array(list(self.new.values()), np.float32)[:, None]
            self.cache.append(self.key, list(self.new), rows)
