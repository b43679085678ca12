from . import backbone as backbone
from . import cache as cache
from . import data as data
from . import distribute as distribute
from . import errors as errors
from . import evaluate as evaluate
from . import features as features
from . import growth as growth
from . import handles as handles
from . import heads as heads
from . import inputs as inputs
from . import options as options
from . import outcome as outcome
from . import report as report
from . import run as run
from . import savedmodel as savedmodel
from . import serving as serving
from . import steps as steps
from . import tasks as tasks
from . import tuning as tuning
from .backbone import Backbone as Backbone
from .cache import Cache as Cache
from .distribute.multiworker import MultiWorkerModel as MultiWorkerModel
from .errors import TfxferError as TfxferError
from .growth import grow as grow
from .recipe import recipe as recipe
from .run import Run as Run
from .transfer import Transfer as Transfer
from .transfer import load as load
from .tuning import optimizers as optimizers
from .tuning.gradual import GradualUnfreeze as GradualUnfreeze

__version__: str
__all__: list[str]
