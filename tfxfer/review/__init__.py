"""What a person should look at before trusting a run: from examples, features and answers to files in the run's folder, for its report.

look          all of it: review.json, thumbnails.zip, label_errors.csv
labels        suspected label errors
duplicates    the most similar pictures of different parts of the data
odd           pictures that look broken
chart         all held-out examples on one plane
occlusion     what of a picture the answer hangs on
"""

from tfxfer.review.look import look

__all__ = ["look"]
