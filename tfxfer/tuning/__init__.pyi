from . import gradual as gradual
from . import optimizers as optimizers
from .activations import check_epochs as check_epochs
from .activations import depths_before_all as depths_before_all
from .activations import depths_of as depths_of
from .activations import last_stages as last_stages
from .activations import stages_of as stages_of
from .activations import views_are_used as views_are_used
from .augmentation import harmless as harmless
from .competition import Competition as Competition
from .competition import compete as compete
from .guard import Plan as Plan
from .guard import Verdict as Verdict
from .guard import plan as plan
from .input_source import from_examples as from_examples
from .setting import epochs_for as epochs_for
from .source import Source as Source
from .training import HeldOut as HeldOut
from .training import Trained as Trained
from .training import train as train

__all__: list[str]
