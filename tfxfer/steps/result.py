"""What a recipe has found, and the end of a run."""

from dataclasses import dataclass

import keras

from tfxfer import report
from tfxfer.backbone import Backbone
from tfxfer.evaluate.baselines import Baselines
from tfxfer.features import Features
from tfxfer.heads import join
from tfxfer.outcome import Outcome
from tfxfer.report.review import look
from tfxfer.run import Run
from tfxfer.steps.simpler import simpler_models
from tfxfer.tuning import Verdict
from tfxfer.tuning.training import History


@dataclass(frozen=True, eq=False)
class Result:
    """The model that a recipe has found, with its predictions for examples that it has not seen.

    features: those that the model's head sees; they include mirror images if the head uses them.
    model: from pixels to calibrated logits.
    history: one dict for each epoch, where something was trained.
    verdict: the comparison of the tuned with the frozen model, where there was one.
    simpler: the simpler models, where they were fitted beside this one.
    """

    network: Backbone
    features: Features
    model: keras.Model
    outcome: Outcome
    history: History = ()
    verdict: Verdict | None = None
    simpler: Baselines | None = None


def joined(
    network: Backbone, taps: int | None, head: keras.layers.Layer, features: Features
) -> keras.Model:
    """Return one model of the network and a head, which sees mirror images if `features` do."""
    mirror = len(features.views) == 2
    return join(network.tapped(taps), head, network.entry_shape, mirror=mirror)


def finish(run: Run, result: Result | None, *, compare: bool = True) -> None:
    """Write all that was found into the run's folder, and print the figures.

    Args:
        result: None in a worker that writes nothing.
        compare: whether simpler models are fitted, to compare with, where there are none yet.
    """
    if result is None:
        return
    features, judged = result.features, result.outcome
    baselines = result.simpler or Baselines({}, {})
    if result.simpler is None and compare:
        with run.timed("baselines"), simpler_models(run, features) as simpler:
            baselines = simpler.wait()
    judged.write(run, result.network, result.model, baselines, result.history)
    with run.timed("report"):
        look(run, features, judged, result.model, result.network)
        look_at = report.write_reports(run)
    run.finish()
    run.say(judged.summary(baselines))
    if result.verdict is not None:
        run.say(str(result.verdict))
    if run.call is None:  # otherwise `Transfer` made the folder, and may copy it elsewhere
        run.say(look_at, run.how_to_predict())
