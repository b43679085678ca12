"""Memory that was freed goes back to the system."""

import re
from pathlib import Path

from tfxfer.process import memory


def held() -> int:
    """Bytes of this process that lie in no file."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])


def test_free_memory_between_used_memory_is_given_back():
    blocks = [bytearray(2000) for _ in range(50_000)]
    full, blocks = held(), blocks[::1000]
    memory.give_back()
    assert held() < full - 70_000_000
    assert len(blocks) == 50
