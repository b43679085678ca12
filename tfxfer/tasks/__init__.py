"""Kinds of answers, one file each.

task        the functions of a kind of answer, and `find`, which looks a kind up by its name
classify    one class of several: labels, probabilities, losses, scores and figures
multilabel  several labels, each of which is there or not
regress     a number, or several
columns     several columns, each a class or a number
part        a part of an answer that has a head of its own, such as one column
cells       labels that stand in several columns, as one text for each example
written_lists  cells that are lists as Python or JSON writes them
known       labels of new data for a model whose outputs are known
figures     the figures of `classify`, with their intervals
strata      groups of examples with the same answers
suspects    examples of `classify` whose label looks wrong
sets        prediction sets: several classes, with the promise that the right one is among them
unsure      between which two answers a model wavers
scores      the paired comparison of scores, for every kind of answer
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
