"""A run: its folder, its settings, and its place in a cluster."""

from tfxfer.run.folder import (
    UNNAMED,
    Finished,
    Run,
    as_text,
    describe_call,
    listed,
    open_run,
    read_json,
    read_labels,
    read_manifest,
    same,
)

__all__ = [
    "UNNAMED",
    "Finished",
    "Run",
    "as_text",
    "describe_call",
    "listed",
    "open_run",
    "read_json",
    "read_labels",
    "read_manifest",
    "same",
]
