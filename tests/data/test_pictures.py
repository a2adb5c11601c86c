"""Files of many kinds, and the exact pixels that must come out."""

import io

import numpy as np
import pytest
from PIL import Image

from t2i_jax.data import pictures


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(mode, colour, size=(9, 9)):
    return Image.new(mode, size, colour)


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (flat("RGB", (10, 20, 30)), (10, 20, 30)),
        (flat("L", 77), (77, 77, 77)),
        (flat("1", 1), (255, 255, 255)),
        (flat("RGBA", (255, 0, 0, 0)), (255, 255, 255)),
        (flat("RGBA", (255, 0, 0, 51)), (255, 204, 204)),  # 51 / 255 = 0.2 of red, 0.8 of white
        (flat("LA", (0, 51)), (204, 204, 204)),
        (Image.fromarray(np.full((9, 9), 65535, np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((9, 9), 100 * 257, np.uint16)), (100, 100, 100)),
        (Image.fromarray(np.full((9, 9), 300, np.uint16)), (1, 1, 1)),  # not clipped at 255
    ],
)
def test_a_flat_png_keeps_its_colour_and_transparency_is_white(image, colour):
    out = pictures.decode(encode(image), 4)
    assert out.shape == (4, 4, 3) and out.dtype == np.uint8
    np.testing.assert_array_equal(out, np.broadcast_to(colour, (4, 4, 3)))


def test_a_palette_with_a_transparent_entry():
    image = Image.new("P", (8, 8))
    image.putpalette([200, 0, 0, 0, 100, 0])
    image.paste(1, (4, 0, 8, 8))
    out = pictures.decode(encode(image, transparency=0), 8)
    assert (out[:, :3] == 255).all() and (out[:, 5:] == (0, 100, 0)).all()


def test_a_transparent_value_of_a_16_bit_grey_png_is_white():
    image = Image.fromarray(np.full((4, 4), 257, np.uint16))
    image.info["transparency"] = 257
    assert (np.asarray(pictures.on_white(image)) == 255).all()


def test_cmyk_jpeg():
    out = pictures.decode(encode(flat("CMYK", (0, 255, 255, 0), (16, 16)), "JPEG", quality=95), 8)
    assert abs(out.astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8, :8], upright[:8, 8:], upright[8:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    out = pictures.decode(encode(stored, "JPEG", quality=100, subsampling=0, exif=exif), 16)
    assert abs(out.astype(int) - upright).max() < 40  # JPEG rings at the edges
    assert (
        abs(
            out[[2, 2, 13, 13], [2, 13, 2, 13]].astype(int)
            - upright[[2, 2, 13, 13], [2, 13, 2, 13]]
        ).max()
        < 8
    )


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)])
def test_the_centre_square_is_kept(shape):
    image = np.zeros((*shape, 3), np.uint8)
    middle = tuple(slice((n - 8) // 2, (n - 8) // 2 + 8) for n in shape)
    image[middle] = (1, 2, 3)
    np.testing.assert_array_equal(pictures.decode(encode(Image.fromarray(image)), 8), image[middle])


def test_resizing_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the result can hold: must become grey, not stripes
    out = pictures.decode(encode(Image.fromarray(stripes)), 8).astype(int)
    assert abs(out - 127).max() <= 8


def test_a_large_jpeg_is_the_same_picture_as_the_png():
    ramp = np.linspace(0, 255, 512).astype(np.uint8)
    image = Image.fromarray(
        np.stack(
            [
                np.tile(ramp, (512, 1)),
                np.tile(ramp[:, None], (1, 512)),
                np.full((512, 512), 9, np.uint8),
            ],
            2,
        )
    )
    a, b = (pictures.decode(encode(image, kind), 32).astype(int) for kind in ("PNG", "JPEG"))
    assert abs(a - b).max() <= 6


def test_a_webp_and_the_first_frame_of_a_gif(tmp_path):
    (tmp_path / "a.webp").write_bytes(encode(flat("RGBA", (0, 0, 255, 0)), "WEBP", lossless=True))
    assert (pictures.decode(tmp_path / "a.webp", 4) == 255).all()
    frames = encode(flat("P", 0), "GIF", save_all=True, append_images=[flat("RGB", (255, 0, 0))])
    assert (pictures.decode(frames, 4) == 0).all()


@pytest.mark.parametrize("size", [(1, 300), (1, 1), (300, 2)])
def test_extreme_sizes(size):
    assert (pictures.decode(encode(flat("RGB", (5, 6, 7), size)), 8) == (5, 6, 7)).all()


noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))


@pytest.mark.parametrize(
    "content",
    [
        encode(noise, "JPEG")[:-4000],
        encode(noise, "PNG")[:-4000],
        encode(noise, "WEBP")[:-4000],
        b"this is not a picture",
        b"",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
)
def test_a_file_that_cannot_be_read_is_a_value_error(content):
    with pytest.raises(ValueError, match="not a readable picture"):
        pictures.decode(content, 8)


def test_floats_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="floating-point pixels have no agreed white"):
        pictures.decode(encode(flat("F", 0.5), "TIFF"), 8)
