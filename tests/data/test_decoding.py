import io
import struct
import threading
import warnings
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from headstart.data.decoding import CoverRule, decode, from_pixels, read_size, shrink, stored_size
from headstart.data.headers import DecodeFailure, exif_orientation
from headstart.errors import HeadstartError

COVER = CoverRule((224, 224))
SMALL = CoverRule((28, 28))  # keeps a short side of 32
PLENTY = 10**8
UNDOES = {number: Image.Transpose(turn) for number, turn in {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.items()}
"""Pillow's turn that undoes each EXIF orientation."""


def scene(height: int, width: int) -> np.ndarray:
    """A smooth coloured picture without symmetry: a wrong turn or channel order shows."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([255 * x, 255 * y, 127 + 120 * np.sin(9 * x * y + 3 * x)], axis=2).astype(np.uint8)


def saved(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


def reason_of(data: bytes, *, max_pixels: int = PLENTY) -> str:
    with pytest.raises(DecodeFailure) as failure:
        decode(data, cover=COVER, max_pixels=max_pixels)
    assert failure.value.detail
    return failure.value.reason


def with_orientation(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def png_header(height: int, width: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    ("fit", "original", "expected"),
    [
        ("crop", (720, 1280), (256, 455)),
        ("crop", (1280, 720), (455, 256)),
        ("crop", (100, 300), (100, 300)),
        ("crop", (300, 100), (300, 100)),
        ("letterbox", (720, 1280), (144, 256)),
        ("letterbox", (50, 50), (50, 50)),
        ("stretch", (720, 1280), (256, 256)),
        ("stretch", (100, 1280), (100, 256)),
        ("letterbox", (3, 30000), (1, 256)),
    ],
)
def test_stored_size_covers_and_never_enlarges(fit, original, expected):
    assert stored_size(original, (224, 224), fit) == expected


def test_stored_size_covers_both_sides_of_an_oblong_image_size():
    height, width = stored_size((1000, 1000), (280, 210), "crop")
    assert (height, width) == (320, 320)


@pytest.mark.parametrize("size", [(720, 1280), (721, 1283), (600, 601), (2000, 1501), (257, 300), (3000, 4000)])
def test_a_jpeg_looks_as_pillow_shows_it(size):
    data = saved(scene(*size), "JPEG", quality=92)
    stored = decode(data, cover=COVER, max_pixels=PLENTY)
    full = Image.open(io.BytesIO(data)).convert("RGB")
    expected = np.asarray(full.resize(stored.pixels.shape[1::-1], Image.Resampling.BILINEAR))
    assert stored.original_size == size
    assert psnr(stored.pixels, expected) > 42


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(181, 133), (640, 480), (643, 481), (1603, 1207)])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_the_scale_says_where_a_point_is(orientation, size, mode):
    """A bright square at a known place is found at scale × place, whatever DCT scale and turn were used."""
    upright = np.full((*size, 3), 40, np.uint8)
    top, left, side = size[0] * 3 // 5, size[1] // 4, size[1] // 5
    upright[top : top + side, left : left + side] = 220
    image = Image.fromarray(upright)
    if orientation > 1:
        image = image.transpose(UNDOES[orientation])
    data = saved(image.convert(mode), "JPEG", quality=95, subsampling=0, exif=with_orientation(orientation))
    stored = decode(data, cover=SMALL, max_pixels=PLENTY)
    assert stored.original_size == size
    weights = np.clip(stored.pixels[..., 0].astype(float) - 42, 0, None)
    found = [np.average(np.arange(n) + 0.5, weights=weights.sum(1 - axis)) for axis, n in enumerate(weights.shape)]
    expected = np.array([top + side / 2, left + side / 2]) * stored.scale
    assert np.abs(found - expected).max() < 0.06


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_in_every_format(kind):
    upright = Image.fromarray(scene(60, 90))
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    options = {"JPEG": {"quality": 97, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    stored = decode(saved(lying, kind, exif=with_orientation(6), **options), cover=COVER, max_pixels=PLENTY)
    assert stored.original_size == (60, 90)
    assert psnr(stored.pixels, np.asarray(upright)) > 38


def test_broken_exif_counts_as_upright():
    assert exif_orientation(b"II*\0\xff\xff\xff\xff") == 1
    assert exif_orientation(b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0") == 1
    data = bytearray(saved(scene(40, 40), "JPEG", exif=with_orientation(6)))
    position = data.index(b"Exif\0\0") + 6
    data[position : position + 8] = b"\xff" * 8
    assert decode(bytes(data), cover=COVER, max_pixels=PLENTY).original_size == (40, 40)


@pytest.mark.parametrize(("kind", "mode"), [
    ("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("PNG", "1"), ("PNG", "RGBA"), ("PNG", "LA"),
    ("GIF", "P"), ("GIF", "L"), ("BMP", "RGB"), ("BMP", "1"), ("TIFF", "CMYK"), ("TIFF", "RGB"), ("WEBP", "RGBA"),
])  # fmt: skip
def test_every_mode_becomes_three_channels_that_look_alike(kind, mode):
    image = Image.fromarray(scene(50, 70)).convert(mode)
    options = {"WEBP": {"lossless": True}}.get(kind, {})
    stored = decode(saved(image, kind, **options), cover=COVER, max_pixels=PLENTY)
    assert stored.pixels.shape == (50, 70, 3)
    assert stored.pixels.dtype == np.uint8
    assert psnr(stored.pixels, np.asarray(image.convert("RGB"))) > 45


def test_alpha_lies_over_white():
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[:10] = (200, 0, 0, 255)
    pixels[10:] = (200, 0, 0, 128)
    stored = decode(saved(pixels, "PNG"), cover=COVER, max_pixels=PLENTY).pixels
    assert stored[0, 0].tolist() == [200, 0, 0]
    assert np.abs(stored[19, 0] - np.array([227, 127, 127])).max() <= 1


def test_a_transparent_palette_colour_is_white():
    image = Image.fromarray(np.repeat([[0, 1]], 10, axis=0).repeat(5, axis=1).astype(np.uint8), "L").convert("P")
    image.putpalette([255, 0, 0, 0, 0, 255] + [0] * 762)
    stored = decode(saved(image, "PNG", transparency=bytes([0, 255])), cover=COVER, max_pixels=PLENTY).pixels
    assert stored[0, 0].tolist() == [255, 255, 255]
    assert stored[0, 9].tolist() == [0, 0, 255]


def test_sixteen_bits_are_divided_by_257():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for kind in ("PNG", "TIFF"):
        stored = decode(saved(Image.fromarray(values), kind), cover=COVER, max_pixels=PLENTY).pixels
        assert np.abs(stored[..., 1] - values / 257).max() <= 0.5


def test_sixteen_bit_colour_png_keeps_its_colours():
    deep = scene(40, 50).astype(np.uint16) * 257
    data = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    assert np.array_equal(decode(data, cover=COVER, max_pixels=PLENTY).pixels, scene(40, 50))


def test_a_float_tiff_is_stretched_from_its_least_to_its_greatest():
    values = np.linspace(-3, 7, 400, dtype=np.float32).reshape(20, 20)
    stored = decode(saved(Image.fromarray(values), "TIFF"), cover=COVER, max_pixels=PLENTY).pixels
    assert (stored.min(), stored.max()) == (0, 255)


def test_the_first_frame_of_a_film_is_taken():
    frames = [Image.fromarray(np.full((30, 30), level, np.uint8)) for level in (10, 250)]
    for kind in ("GIF", "TIFF", "WEBP"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        assert decode(data, cover=COVER, max_pixels=PLENTY).pixels.mean() < 20


def test_inverted_cmyk_jpeg_is_read_as_other_programs_do():
    image = Image.fromarray(scene(300, 400))
    stored = decode(saved(image.convert("CMYK"), "JPEG", quality=95), cover=COVER, max_pixels=PLENTY)
    expected = np.asarray(image.resize(stored.pixels.shape[1::-1], Image.Resampling.BILINEAR))
    assert psnr(stored.pixels, expected) > 35


def test_nothing_is_empty():
    assert reason_of(b"") == "empty"


@pytest.mark.parametrize("data", [b"hello world\n" * 50, b"BMW is a car" * 9, b"\0\0\0\x18ftypheic" + b"\0" * 90])
def test_text_and_foreign_formats_are_no_image(data):
    assert reason_of(data) == "not an image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_cut_short_is_truncated(kind, share):
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    data = saved(noise, kind)
    assert reason_of(data[: int(len(data) * share)]) == "truncated"


def test_a_jpeg_cut_short_and_closed_again_is_truncated():
    data = saved(scene(300, 400), "JPEG", quality=95)
    assert reason_of(data[: len(data) // 2] + b"\xff\xd9") == "truncated"


def test_a_jpeg_that_lacks_only_its_end_marker_is_whole():
    data = saved(scene(300, 400), "JPEG", quality=95)
    whole, open_ended = (decode(d, cover=COVER, max_pixels=PLENTY).pixels for d in (data, data[:-2]))
    assert np.array_equal(whole, open_ended)


def test_a_damaged_png_is_a_decoder_error():
    data = bytearray(saved(scene(60, 60), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert reason_of(bytes(data)) == "decoder error"


def test_a_huge_header_is_refused_before_decoding():
    assert reason_of(png_header(30_000, 30_000), max_pixels=200_000_000) == "too many pixels"
    assert reason_of(png_header(30_000, 30_000) + b"\0" * 99, max_pixels=200_000_000) == "too many pixels"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_max_pixels_is_exact_in_every_format(kind):
    data = saved(scene(40, 50), kind)
    assert decode(data, cover=COVER, max_pixels=2000).original_size == (40, 50)
    with pytest.raises(DecodeFailure, match=r"40 × 50 = 2,000 pixels; at most 1,999"):
        decode(data, cover=COVER, max_pixels=1999)


def test_pillows_own_bound_does_not_show(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(saved(scene(40, 50), "PNG"), cover=COVER, max_pixels=2000).original_size == (40, 50)


def test_pillows_warnings_do_not_show_in_threads_and_the_filters_are_left_as_they_were():
    data = bytearray(saved(scene(30, 30), "TIFF"))
    data[data.index(b"\x1c\x01\x03\0\x01\0\0\0") + 4] = 2  # the planar configuration claims two values
    with pytest.warns(UserWarning, match="too many entries"):
        Image.open(io.BytesIO(data)).load()
    before, caught = list(warnings.filters), []

    def work():
        try:
            for _ in range(20):
                decode(bytes(data), cover=COVER, max_pixels=PLENTY)
        except Warning as warning:
            caught.append(warning)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not caught
    assert list(warnings.filters) == before


def test_shrinking_keeps_the_mean_and_a_constant():
    pixels = np.random.default_rng(1).integers(0, 255, (300, 401, 3), np.uint8)
    for size in ((256, 342), (150, 200), (100, 101), (300, 200)):
        assert abs(shrink(pixels, size).mean() - pixels.mean()) < 0.6
        assert (shrink(np.full((300, 401, 3), 77, np.uint8), size) == 77).all()


def test_shrinking_does_not_alias():
    """Stripes of one pixel turn grey; plain bilinear sampling would leave beats of full contrast."""
    stripes = np.tile(np.array([0, 255], np.uint8), (360, 320))
    assert shrink(stripes, (200, 356)).std() < 40
    assert cv2.resize(stripes, (356, 200), interpolation=cv2.INTER_LINEAR).std() > 50


def test_pixels_from_elsewhere_come_out_like_a_file():
    image = Image.fromarray(scene(500, 600))
    from_file = decode(saved(image, "PNG"), cover=COVER, max_pixels=PLENTY)
    for given in (image, np.asarray(image), np.asarray(image).astype(np.uint16) * 257):
        stored = from_pixels(given, cover=COVER)
        assert np.array_equal(stored.pixels, from_file.pixels)
        assert (stored.original_size, stored.scale) == (from_file.original_size, from_file.scale)


def test_the_callers_pixels_are_not_written_over():
    pixels = scene(300, 400)
    image = Image.fromarray(pixels)
    from_pixels(pixels, cover=COVER)
    from_pixels(image, cover=COVER)
    shrink(pixels, (256, 341))
    assert np.array_equal(pixels, scene(300, 400))
    assert np.array_equal(np.asarray(image), scene(300, 400))


def test_a_pillow_image_is_turned_upright():
    lying = Image.open(io.BytesIO(saved(scene(60, 90), "JPEG", exif=with_orientation(8))))
    assert from_pixels(lying, cover=COVER).original_size == (90, 60)


def test_a_pillow_image_of_a_broken_file_fails_with_its_reason():
    data = saved(scene(60, 90), "PNG")
    with pytest.raises(DecodeFailure) as failure:
        from_pixels(Image.open(io.BytesIO(data[: len(data) // 2])), cover=COVER)
    assert failure.value.reason == "truncated"


@pytest.mark.parametrize("array", [np.zeros((5, 5)), np.zeros((5, 5, 2), np.uint8), np.zeros((0, 5), np.uint8)])
def test_an_array_of_another_kind_is_refused_by_name(array):
    with pytest.raises(HeadstartError, match=f"image array must be uint8 or uint16.*{array.dtype} of shape"):
        from_pixels(array, cover=COVER)


def test_read_size_does_not_need_the_whole_file():
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        assert read_size(saved(scene(70, 90), kind)[:2000], max_pixels=PLENTY) == (70, 90)


def test_a_tiny_jpeg_is_decoded_at_full_size():
    data = simplejpeg.encode_jpeg(scene(4, 4), quality=100, colorsubsampling="444")
    assert np.array_equal(decode(data, cover=COVER, max_pixels=PLENTY).pixels, simplejpeg.decode_jpeg(data))


@pytest.mark.real_data
def test_sample_photos_look_as_pillow_shows_them(real_data):
    found = []
    for path in sorted((real_data / "sample_photos").glob("*.jpg")):
        stored = decode(path.read_bytes(), cover=COVER, max_pixels=PLENTY)
        with Image.open(path) as image:
            full = image.convert("RGB").resize(stored.pixels.shape[1::-1], Image.Resampling.BILINEAR)
        found.append(psnr(stored.pixels, np.asarray(full)))
    assert len(found) == 12
    assert np.median(found) > 42
    assert min(found) > 38
