"""A run: its folder, its settings, and its place in a cluster.

run        Run: a run that is being written
settings   the options that every recipe has, and how settings are written down
resume     which settings a run keeps that goes on
folder     the files of the folder: a file appears whole, and the manifest comes last
finished   a finished run, read back
place      devices and workers
attempt    parts that a finished run can do without
"""

from tfxfer.run.finished import Finished, again, open_run
from tfxfer.run.folder import listed, read_json, read_labels, read_manifest
from tfxfer.run.place import CLUSTERS
from tfxfer.run.run import UNNAMED, Run
from tfxfer.run.settings import Common, Place, as_text, describe_call, same

__all__ = [
    "CLUSTERS",
    "UNNAMED",
    "Common",
    "Finished",
    "Place",
    "Run",
    "again",
    "as_text",
    "describe_call",
    "listed",
    "open_run",
    "read_json",
    "read_labels",
    "read_manifest",
    "same",
]
