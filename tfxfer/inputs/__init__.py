"""The kinds of examples, a file or folder each: how they are read, checked, altered and shown.

kind        the functions of a kind, and `find`, which looks a kind up by its name
input       what one network takes for one example
defaults    what a kind does where it has nothing of its own
encoding    in which encoding bytes are text
image/      images
text/       texts
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
