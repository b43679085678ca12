"""Finished runs and photos of all kinds, for tests of what comes after a run."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from tfxfer.backbone import Backbone
from tfxfer.evaluate import doubt
from tfxfer.evaluate.unknown import fit_unknown
from tfxfer.run import Run

CLASSES = ("china", "flower", "none <of> these")
SIZE = (32, 32)
ORIENTATION = 0x0112


def load_photo() -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg")).resize((100, 67))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def write_kinds(folder: Path) -> Path:
    """Write 50 files of one photo.

    They have every format, mode and orientation that is served, and odd sizes.
    """
    photo, large = load_photo(), Image.fromarray(load_sample_image("flower.jpg"))
    grey, palette = photo.convert("L"), photo.quantize(16)
    alpha = photo.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(photo.size))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    files = [(f"turned{n}.jpg", photo, "JPEG", {"exif": turned(n)}) for n in range(1, 9)]
    files += [(f"turned{n}.png", photo, "PNG", {"exif": turned(n)}) for n in range(2, 9)]
    files += [(f"turned{n}.webp", photo, "WEBP", {"exif": turned(n)}) for n in range(2, 9)]
    files += [
        ("colour.jpg", photo, "JPEG", {}),
        ("grey.jpg", grey, "JPEG", {}),
        ("cmyk.jpg", photo.convert("CMYK"), "JPEG", {}),
        ("progressive.jpg", photo, "JPEG", {"progressive": True}),
        ("coarse.jpg", photo, "JPEG", {"quality": 5}),
        ("fine.jpg", photo, "JPEG", {"quality": 100, "subsampling": 0}),
        ("colour.png", photo, "PNG", {}),
        ("grey.png", grey, "PNG", {}),
        ("deep.png", deep, "PNG", {}),
        ("palette.png", palette, "PNG", {}),
        ("clear.png", palette, "PNG", {"transparency": 3}),
        ("alpha.png", alpha, "PNG", {}),
        ("grey_alpha.png", alpha.convert("LA"), "PNG", {}),
        ("bits.png", photo.convert("1"), "PNG", {}),
        ("first.gif", photo.quantize(64), "GIF", {}),
        ("moving.gif", photo, "GIF", {"save_all": True, "append_images": [photo.rotate(90)]}),
        ("clear.gif", palette, "GIF", {"transparency": 3}),
        ("colour.bmp", photo, "BMP", {}),
        ("palette.bmp", photo.quantize(256), "BMP", {}),
        ("colour.webp", photo, "WEBP", {}),
        ("exact.webp", photo, "WEBP", {"lossless": True}),
        ("alpha.webp", alpha, "WEBP", {}),
        ("moving.webp", photo, "WEBP", {"save_all": True, "append_images": [photo.rotate(90)]}),
        ("one.png", photo.resize((1, 1)), "PNG", {}),
        ("wide.jpg", photo.resize((300, 20)), "JPEG", {}),
        ("tall.jpg", photo.resize((20, 300)), "JPEG", {}),
        ("size.png", photo.resize(SIZE), "PNG", {}),
        ("large.jpg", large, "JPEG", {}),
    ]
    for name, image, kind, options in files:
        (folder / name).write_bytes(encoded(image, kind, **options))
    return folder


def write_run(
    folder: Path, model, *, classes=CLASSES, data="photos", thresholds=True, known=60, metrics=None
) -> Path:
    """A finished run of a model."""
    run = Run(folder, options={"data": str(data)})
    backbone = next(layer for layer in model.layers if isinstance(layer, Backbone))
    run.record(image_size=backbone.image_size, value_range=backbone.value_range)
    run.write_text("labels.txt", "".join(f"{name}\n" for name in classes))
    run.write("model.keras", model.save)
    if metrics:
        run.write_json("metrics.json", metrics)
    if thresholds:
        run.write(
            "doubt.npz", some_doubt(sum(backbone.tap_widths) or backbone.feature_size, known).save
        )
    run.finish()
    return folder


def some_doubt(width: int, known: int = 60) -> doubt.Doubt:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, width)).astype(np.float32)
    fitted = fit_unknown(x, np.arange(60) % 3)
    return doubt.Doubt(
        strangest=np.sort(rng.uniform(size=40)).astype(np.float32),
        known=np.sort(fitted.scores(x))[:known],
        by="validation",
        tail=width,
        unknown=fitted,
    )
