"""Reports on runs for people: a page with pictures, a model card, several runs side by side.

They read run folders and nothing else.

page       report.html, and report.json with the same figures
pictures   its figures
card       MODEL_CARD.md
compare    runs side by side
write      all files of one run
review     what a person should look at before trusting a run
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
