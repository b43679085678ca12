"""Reports on runs for people: a page with pictures, a model card, several runs side by side.

They read run folders and nothing else.

page       report.html, and report.json with the same figures
pictures   its figures
card       MODEL_CARD.md
compare    runs side by side
write      all files of one run
"""

from tfxfer.report.card import card
from tfxfer.report.compare import compare
from tfxfer.report.page import as_json, facts, page
from tfxfer.report.write import again, write

__all__ = ["again", "as_json", "card", "compare", "facts", "page", "write"]
