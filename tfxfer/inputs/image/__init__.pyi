from .augment import augment_images as augment_images
from .decode import fingerprint as fingerprint
from .decode import grey_jpeg as grey_jpeg
from .decode import pack as pack
from .decode import pixels as pixels
from .decode import pixels_of_many as pixels_of_many
from .decode import pixels_unless_large as pixels_unless_large
from .decode import unpack as unpack
from .input import ImageInput as ImageInput
from .kind import NAME as NAME
from .picture import preview as preview
from .spec import input_spec as input_spec

__all__: list[str]
