from .decode import pixels as pixels
from .input import ImageInput as ImageInput

__all__: list[str]
