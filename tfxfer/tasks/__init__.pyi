from .scores import chance_error as chance_error
from .scores import paired as paired
from .scores import said_of_gain as said_of_gain
from .scores import smoothed_difference as smoothed_difference
from .task import CLASSIFY as CLASSIFY
from .task import TASKS as TASKS
from .task import Task as Task
from .task import calibrated as calibrated
from .task import calibrated_loss as calibrated_loss
from .task import check_decision as check_decision
from .task import find as find

__all__: list[str]
