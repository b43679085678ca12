"""Images: from the bytes of a file to pixels, and what only images have.

kind        all that the rest of tfxfer asks images for, see `tfxfer.inputs.kind`
decode      from bytes to pixels, in TensorFlow operations only
input       ImageInput: what a network of images takes
spec        which of a network's inputs that is
headers     the size of an image from its header; jpegxl does so for JPEG XL
check       whether a file is an image that can be decoded; damage finds damaged ones
heic        HEIC, AVIF and TIFF files as PNG, which TensorFlow decodes
png         arrays as PNG files
augment     altered views of an image
scale       a warning where pixels have another scale than the network expects
occlusion   the parts of an image that an answer depends on
odd         images that look broken
picture     small pictures of images
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
