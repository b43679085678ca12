"""Texts: from the bytes of a file to rows of numbers, and what only texts have.

kind        all that the rest of tfxfer asks texts for, see `tfxfer.inputs.kind`
read        from the bytes of a file to UTF-8, whatever encoding it has
input       TextInput: what a network of texts takes
rows        from texts to the numbers of a tokenizer
pieces      how a tokenizer makes numbers of texts, for an app that has no tokenizer
alter       a text without some words, or with its sentences in another order
tf_idf      words and letters, for a model without a network
excerpt     the beginning of a text, for people
words       the words that an answer depends on
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
