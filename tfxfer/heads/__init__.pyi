from . import mirrors as mirrors
from . import ranges as ranges
from .averaged import Averaged as Averaged
from .closed import gaussian as gaussian
from .closed import prototype as prototype
from .closed import ridge as ridge
from .fitted import Fitted as Fitted
from .layers import MLP as MLP
from .layers import Cosine as Cosine
from .layers import Flip as Flip
from .layers import Standardisation as Standardisation
from .layers import TakeColumns as TakeColumns
from .layers import TapNormalization as TapNormalization
from .layers import join as join
from .logistic import linear as linear
from .side_by_side import SideBySide as SideBySide
from .train import Trained as Trained
from .train import fit_head as fit_head
from .validate import Candidate as Candidate
from .validate import Choice as Choice
from .validate import choose as choose

__all__: list[str]
