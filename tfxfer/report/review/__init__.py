"""Find what a person should look at before trusting a run.

It is computed from examples, features and answers, and written to the run's folder for its report.

look          all of it: review.json, thumbnails.zip, label_errors.csv
duplicates    the most similar pictures of different parts of the data
odd           pictures that look broken
chart         all held-out examples on one plane
occlusion     the parts of a picture that the answer depends on
"""

from tfxfer.report.review.look import look

__all__ = ["look"]
