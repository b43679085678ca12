"""How far it is, for who waits."""

import sys
import time

from tqdm import tqdm

LINE_EVERY = 5.0  # seconds between lines of progress where there is no terminal, at the beginning
SHARE = 0.05  # of the time since the beginning, where that is more


class Progress:
    """A bar on a terminal; elsewhere a line now and then."""

    def __init__(
        self,
        total: int,
        shown: bool,
        what: str = "features",
        *,
        unit: str = "images",
        quick: bool = False,
    ):
        """`quick`: say nothing of what takes no longer than `LINE_EVERY`, nor at the end."""
        self.what, self.total, self.done, self.began = what, total, 0, time.monotonic()
        self.unit, self.quick = unit, quick
        self.lines = shown and not sys.stderr.isatty()
        self.said = self.began
        self.first = (0, self.began)  # how many the first ones were, and when they were done
        self.bar = tqdm(
            total=total,
            desc=what,
            unit=f" {unit}",
            disable=not shown or self.lines,
            dynamic_ncols=True,
            delay=LINE_EVERY if quick else 0,
            leave=not quick,
        )

    def update(self, count: int) -> None:
        """`count` more images are done."""
        now = time.monotonic()
        if not self.done:
            self.first = (count, now)
        self.done += count
        self.bar.update(count)
        if self.quick and self.done == self.total:
            return  # who called says what came of it
        pause = max(LINE_EVERY, SHARE * (now - self.began))
        if self.lines and (now - self.said > pause or self.done == self.total):
            self.said = now
            line = f"{self.what}: {self.done} of {self.total} {self.unit}{self._speed(now)}"
            print(line, file=sys.stderr)

    def _speed(self, now: float) -> str:
        """Speed and time left; at the end the speed of all."""
        done, began = self.done, self.began
        if self.done < self.total:
            # The first ones also waited for TensorFlow to prepare itself.
            done, began = self.done - self.first[0], self.first[1]
        if not done or now <= began:
            return ""
        rate = done / (now - began)
        digits = 0 if rate >= 10 else 1
        left = (self.total - self.done) / rate
        return f", {rate:.{digits}f} {self.unit}/s, {left:.0f} s left"

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
