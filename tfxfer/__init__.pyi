from . import augment as augment
from . import backbone as backbone
from . import cache as cache
from . import data as data
from . import dataservice as dataservice
from . import distribute as distribute
from . import engines as engines
from . import errors as errors
from . import evaluate as evaluate
from . import features as features
from . import gradual as gradual
from . import handles as handles
from . import heads as heads
from . import mirrors as mirrors
from . import optimizers as optimizers
from . import outcome as outcome
from . import preprocess as preprocess
from . import probe as probe
from . import ranges as ranges
from . import report as report
from . import review as review
from . import run as run
from . import savedmodel as savedmodel
from . import serving as serving
from . import tuning as tuning
from .backbone import Backbone as Backbone
from .cache import Cache as Cache
from .errors import TfxferError as TfxferError
from .gradual import GradualUnfreeze as GradualUnfreeze
from .multiworker import MultiWorkerModel as MultiWorkerModel
from .recipe import recipe as recipe
from .run import Run as Run

__version__: str
__all__: list[str]
