"""Run the pipeline: python -m tfxfer.beam HOME RUNNER [BEAM'S OPTIONS ...]

It runs in a process group of its own.
"""

import os
import sys
import threading
import traceback
from pathlib import PurePath

import apache_beam
from apache_beam.options.pipeline_options import PipelineOptions

from tfxfer.beam.work import LOST, Compute, found

# Beam's own DirectRunner first downloads Prism, another runner, which does not know
# --direct_num_workers.
RUNNERS = {"DirectRunner": "apache_beam.runners.portability.fn_api_runner.FnApiRunner"}


def lost(caught: threading.ExceptHookArgs) -> None:
    """End at once, because Beam's direct runner waits for ever for a worker that was killed."""
    traceback.print_exception(caught.exc_type, caught.exc_value, caught.exc_traceback)
    sys.stderr.flush()
    os._exit(LOST)


def main(home: str, runner: str, *arguments: str) -> None:
    """Send every list in the folder `home` through one stage."""
    threading.excepthook = lost
    names = [PurePath(path).stem for path in found(f"{home}/todo/*.json")]
    options = PipelineOptions([f"--runner={RUNNERS.get(runner, runner)}", *arguments])
    with apache_beam.Pipeline(options=options) as pipeline:
        (
            pipeline
            | "Lists" >> apache_beam.Create(names)
            | "Spread" >> apache_beam.Reshuffle()
            | "Compute" >> apache_beam.ParDo(Compute(home))
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
