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
        """`quick`: say nothing of what takes no longer than `LINE_EVERY`."""
        self.what, self.total, self.done, self.began = what, total, 0, time.monotonic()
        self.unit, self.quick = unit, quick
        self.lines = shown and not sys.stderr.isatty()
        self.said = self.began
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
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        pause = max(LINE_EVERY, SHARE * (now - self.began))
        if self.lines and (now - self.said > pause or self._ends()):
            self.said, taken = now, now - self.began
            rate = self.done / taken
            digits = 0 if rate >= 10 else 1
            print(
                f"{self.what}: {self.done} of {self.total} {self.unit}, {rate:.{digits}f} "
                f"{self.unit}/s, {(self.total - self.done) / rate:.0f} s left",
                file=sys.stderr,
            )

    def _ends(self) -> bool:
        """Whether this is the last line, and is wanted."""
        said_before = self.said > self.began
        return self.done == self.total and (said_before or not self.quick)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
