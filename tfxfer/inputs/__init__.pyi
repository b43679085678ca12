from . import image as image
from . import text as text
from .input import TELLING as TELLING
from .input import AppInput as AppInput
from .input import Damage as Damage
from .input import Files as Files
from .input import Input as Input
from .input import seed_of as seed_of
from .kind import DEFAULT as DEFAULT
from .kind import KINDS as KINDS
from .kind import Kind as Kind
from .kind import find as find
from .kind import how_many as how_many
from .kind import of_shape as of_shape

__all__: list[str]
