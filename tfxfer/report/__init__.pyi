from . import review as review
from .card import make_card as make_card
from .compare import compare_runs as compare_runs
from .page import as_json as as_json
from .page import facts as facts
from .page import make_head as make_head
from .page import make_page as make_page
from .write import write_again as write_again
from .write import write_reports as write_reports

__all__: list[str]
