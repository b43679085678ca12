"""How far it is, for who waits."""

import sys
import time

from tqdm import tqdm

LINE_EVERY = 15.0  # seconds between lines of progress where there is no terminal


class Progress:
    """A bar on a terminal; elsewhere a line now and then."""

    def __init__(self, total: int, shown: bool, what: str = "features"):
        self.what, self.total, self.done, self.began = what, total, 0, time.monotonic()
        self.lines = shown and not sys.stderr.isatty()
        self.said = self.began
        self.bar = tqdm(
            total=total, desc=what, unit="img", disable=not shown or self.lines, dynamic_ncols=True
        )

    def update(self, count: int) -> None:
        """`count` more images are done."""
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        if self.lines and (now - self.said > LINE_EVERY or self.done == self.total):
            self.said, taken = now, now - self.began
            rate = self.done / taken
            print(
                f"{self.what}: {self.done} of {self.total} images, {rate:.0f} images/s, {(self.total - self.done) / rate:.0f} s left",
                file=sys.stderr,
            )

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
