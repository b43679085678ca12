"""Uses of a network's features that need no training.

seen        the features and predictions of files
alike       the files that look most like another
next_labels which files without a label to label next
gallery     these as a page that shows each of them
vectors     the features of labelled examples in a file, for other programs
"""

from tfxfer.explore.alike import Neighbour, find_alike
from tfxfer.explore.gallery import write_gallery
from tfxfer.explore.next_labels import Pick, pick_next, write_picks
from tfxfer.explore.vectors import write_vectors

__all__ = [
    "Neighbour",
    "Pick",
    "find_alike",
    "pick_next",
    "write_gallery",
    "write_picks",
    "write_vectors",
]
