#!/usr/bin/env python3
"""Makes tests/fixtures/pictures: small picture files of every kind, and what the reference sees in them.

    python scripts/fixtures_pictures.py OUT    # default: tests/fixtures/pictures

`expected.npz` has for each file `NAME` (its suffix included):
  NAME.rgb       [height, width, 3] uint8: decoded by PIL, turned by its orientation (PIL's exif_transpose, as transformers'
                 load_image does), laid over white by transformers' convert_to_rgb
  NAME.squashed  [24, 24, 3] uint8: pixel_values of transformers' SigLIP image processor, configured as Gemma 3n's, times 255

Needs the packages of scripts/requirements.txt. Two runs with the same packages give the same bytes.
"""
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from transformers import SiglipImageProcessor
from transformers.image_transforms import convert_to_rgb

SIDE = 24
PROCESSOR = SiglipImageProcessor(
    size={"height": SIDE, "width": SIDE}, resample=2, do_rescale=True, rescale_factor=1 / 255, do_normalize=False, do_convert_rgb=True
)
RNG = np.random.default_rng(4)


def scene(height, width, channels, depth=8):
    """Smooth colours with some noise, levels of `depth` bits."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [0.5 + 0.4 * np.sin(x / (4 + k) + k) * np.cos(y / (5 - k) + 2 * k) + RNG.uniform(-0.1, 0.1, x.shape) for k in range(channels)]
    return np.round(np.clip(np.stack(planes, -1), 0, 1) * (2**depth - 1)).astype(np.uint16 if depth > 8 else np.uint8)


GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def png(samples, kind, depth, chunks=(), interlaced=False):
    """A PNG file from [height, width, channels] samples, with `chunks` before the data."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def rows(part):
        bits = part.reshape(part.shape[0], -1)
        if depth == 16:
            return b"".join(b"\0" + row.astype(">u2").tobytes() for row in bits)
        if depth == 8:
            return b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in bits)
        spread = [np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :].ravel() for row in bits]
        return b"".join(b"\0" + np.packbits(row).tobytes() for row in spread)

    height, width = samples.shape[:2]
    if interlaced:
        data = b"".join(rows(samples[y::dy, x::dx]) for y, x, dy, dx in ADAM7 if samples[y::dy, x::dx].size)
    else:
        data = rows(samples)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced))
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in body)


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


def saved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pngs():
    rgb, rgba = scene(14, 20, 3), scene(14, 20, 4)
    colours = RNG.integers(0, 256, 3 * 16).astype(np.uint8)
    palette, transparency = (b"PLTE", colours.tobytes()), (b"tRNS", bytes([0, 128, 255, 17, 200]))
    indices = RNG.integers(0, 16, (14, 20, 1))
    grey16 = scene(14, 20, 1, 16)
    yield "rgb.png", png(rgb, RGB, 8)
    yield "interlaced.png", png(rgb, RGB, 8, interlaced=True)
    yield "rgba.png", png(rgba, RGBA, 8)
    yield "grey.png", png(scene(14, 20, 1), GREY, 8)
    yield "grey-alpha.png", png(scene(14, 20, 2), GREY_ALPHA, 8)
    for depth in (1, 2, 4):
        yield f"grey{depth}.png", png(scene(14, 21, 1, depth), GREY, depth)
    yield "palette.png", png(indices, PALETTE, 8, [palette])
    yield "palette-transparent.png", png(indices, PALETTE, 4, [palette, transparency])
    yield "rgb-keyed.png", png(rgb, RGB, 8, [(b"tRNS", struct.pack(">3H", *rgb[3, 4]))])
    grey = scene(14, 20, 1)
    yield "grey-keyed.png", png(grey, GREY, 8, [(b"tRNS", struct.pack(">H", grey[3, 4, 0]))])
    yield "rgb16.png", png(scene(14, 20, 3, 16), RGB, 16)
    yield "rgba16.png", png(scene(14, 20, 4, 16), RGBA, 16)
    yield "grey-alpha16.png", png(scene(14, 20, 2, 16), GREY_ALPHA, 16)
    # The reference clips 16-bit grey at 255, which leaves white; ours is to equal the same picture as 16-bit RGB.
    yield "grey16.png", png(grey16, GREY, 16), png(np.repeat(grey16, 3, -1), RGB, 16)
    yield "1x1.png", png(scene(1, 1, 3), RGB, 8)
    yield "1x10000.png", png(scene(10000, 1, 1, 4), GREY, 4)
    yield "10000x1.png", png(scene(1, 10000, 1, 4), GREY, 4)
    for orientation in range(1, 9):
        yield f"turned{orientation}.png", png(scene(7, 12, 3), RGB, 8, [(b"eXIf", exif(orientation)[6:])])
    yield "turned-wrongly.png", png(scene(7, 12, 3), RGB, 8, [(b"eXIf", exif(9)[6:])])


def jpegs():
    picture = Image.fromarray(scene(40, 52, 3))
    yield "444.jpg", saved(picture, "JPEG", quality=90, subsampling=0)
    yield "422.jpg", saved(picture, "JPEG", quality=90, subsampling=1)
    yield "420.jpg", saved(picture, "JPEG", quality=90, subsampling=2)
    yield "progressive.jpg", saved(picture, "JPEG", quality=90, progressive=True)
    yield "restarts.jpg", saved(picture, "JPEG", quality=90, restart_marker_blocks=3)
    yield "grey.jpg", saved(picture.convert("L"), "JPEG", quality=90)
    cmyk = saved(Image.fromarray(scene(40, 52, 4), "CMYK"), "JPEG", quality=90, subsampling=0)
    yield "cmyk.jpg", cmyk
    # The Adobe segment's last byte says how colours are kept: 0 as they are, 2 as YCCK.
    adobe = cmyk.index(b"Adobe") + 11
    yield "ycck.jpg", cmyk[:adobe] + b"\2" + cmyk[adobe + 1 :]
    for orientation in range(1, 9):
        yield f"turned{orientation}.jpg", saved(Image.fromarray(scene(16, 24, 3)), "JPEG", quality=95, subsampling=0, exif=exif(orientation))


def others():
    picture, clear = Image.fromarray(scene(14, 20, 3)), Image.fromarray(scene(14, 20, 4))
    frames = [Image.fromarray(scene(14, 20, 3)).quantize(16) for _ in range(3)]
    yield "animated.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    yield "transparent.gif", saved(frames[0], "GIF", transparency=3)
    yield "lossless.webp", saved(picture, "WEBP", lossless=True)
    yield "lossless-alpha.webp", saved(clear, "WEBP", lossless=True, exact=True)
    yield "lossy.webp", saved(picture.resize((52, 40)), "WEBP", quality=90)
    yield "lossy-alpha.webp", saved(clear.resize((52, 40)), "WEBP", quality=90)
    animation = [Image.fromarray(scene(14, 20, 3)) for _ in range(3)]
    yield "animated.webp", saved(animation[0], "WEBP", save_all=True, append_images=animation[1:], lossless=True)
    yield "turned6.webp", saved(picture, "WEBP", lossless=True, exif=exif(6))
    yield "rgb.bmp", saved(picture, "BMP")
    yield "palette.bmp", saved(frames[1], "BMP")
    yield "bilevel.bmp", saved(picture.convert("1"), "BMP")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield f"{compression}.tif", saved(picture, "TIFF", compression=compression)
    yield "rgba.tif", saved(clear, "TIFF", compression="tiff_lzw")
    yield "bilevel.tif", saved(picture.convert("1"), "TIFF", compression="group4")
    yield "cmyk.tif", saved(Image.fromarray(scene(14, 20, 4), "CMYK"), "TIFF", compression="tiff_lzw")
    yield "pages.tif", saved(picture, "TIFF", save_all=True, append_images=[clear.convert("RGB")], compression="tiff_lzw")
    yield "turned6.tif", saved(picture, "TIFF", tiffinfo={0x0112: 6}, compression="tiff_lzw")


def expected(data):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    values = PROCESSOR(image, return_tensors="np")["pixel_values"][0]
    return convert_to_rgb(image, return_numpy=True), np.round(values * 255).astype(np.uint8).transpose(1, 2, 0)


def main():
    root = Path(__file__).resolve().parent.parent
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/fixtures/pictures"
    out.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, data, *twin in [*pngs(), *jpegs(), *others()]:
        (out / name).write_bytes(data)
        rgb, squashed = expected(*twin or (data,))
        arrays[f"{name}.squashed"] = squashed
        if rgb.size <= 10_000:
            arrays[f"{name}.rgb"] = rgb
    np.savez_compressed(out / "expected.npz", **arrays)


if __name__ == "__main__":
    main()
