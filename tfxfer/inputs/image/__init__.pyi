from .augment import augment_images as augment_images
from .decode import pixels as pixels
from .input import ImageInput as ImageInput
from .input import input_spec as input_spec
from .kind import NAME as NAME
from .picture import preview as preview

__all__: list[str]
