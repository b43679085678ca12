"""Show how far a computation is, how fast it is, and how long it will still take."""

import sys
import time

from tqdm import tqdm

# Where there is no terminal, a line of progress is printed after this many seconds, or after this
# share of the time since the beginning, if that is longer.
LINE_EVERY = 5.0
SHARE = 0.05


class Progress:
    """A progress bar on a terminal; elsewhere a line of text from time to time."""

    def __init__(
        self,
        total: int,
        shown: bool,
        what: str = "features",
        *,
        unit: str = "examples",
        quick: bool = False,
    ):
        """With `quick`, show no bar in the first `LINE_EVERY` seconds, and no line at the end."""
        self.what, self.total, self.done, self.began = what, total, 0, time.monotonic()
        self.unit, self.quick = unit, quick
        self.lines = shown and not sys.stderr.isatty()
        self.said = self.began
        self.first = (0, self.began)  # count and time of the first update
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
        """`count` more examples are done."""
        now = time.monotonic()
        if not self.done:
            self.first = (count, now)
        self.done += count
        self.bar.update(count)
        if self.quick and self.done == self.total:
            return  # the caller prints the result
        pause = max(LINE_EVERY, SHARE * (now - self.began))
        if self.lines and (now - self.said > pause or self.done == self.total):
            self.said = now
            line = f"{self.what}: {self.done} of {self.total} {self.unit}{self._speed(now)}"
            print(line, file=sys.stderr)

    def _speed(self, now: float) -> str:
        """Speed and time left; at the end, the speed over the whole time."""
        done, began = self.done, self.began
        if self.done < self.total:
            # Without the first update, which also waited for TensorFlow to prepare itself.
            done, began = self.done - self.first[0], self.first[1]
        if not done or now <= began:
            return ""
        rate = done / (now - began)
        digits = 0 if rate >= 10 else 1
        left = (self.total - self.done) / rate
        return f", {rate:.{digits}f} {self.unit}/s, {left:.0f} s left"

    def close(self) -> None:
        """Stop the bar where it is."""
        self.bar.close()
