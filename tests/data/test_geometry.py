import cv2
import numpy as np
import pytest

from headstart.data import geometry
from headstart.errors import HeadstartError

FITS = ("crop", "letterbox", "stretch")


def random_photo(height, width, *, blur=2.0, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(pixels, (0, 0), blur) if blur else pixels


def random_maps(num_maps, *, image_size=(120, 90), seed=0):
    rng = np.random.default_rng(seed)
    crops = geometry.resize_and_crop(
        np.tile([[130, 170]], (num_maps, 1)), image_size=image_size, fit="crop", crop_fraction=0.875
    )
    flipped = geometry.flips(rng.random(num_maps) < 0.5, rng.random(num_maps) < 0.5, image_size=image_size)
    turned = geometry.turns(
        rng.uniform(-180, 180, num_maps),
        rng.uniform(0.7, 1.4, num_maps),
        rng.uniform(-0.2, 0.2, (num_maps, 2)),
        image_size=image_size,
    )
    return geometry.compose(crops, flipped, turned)


def bilinear(image, affine, image_size, border):
    """Sample the plain way, in float64: the yardstick for OpenCV and torch."""
    (height, width), back = image.shape[:2], geometry.invert(affine[None])[0]
    rows, columns = np.mgrid[: image_size[0], : image_size[1]] + 0.5
    x, y = (back[axis, 0] * columns + back[axis, 1] * rows + back[axis, 2] - 0.5 for axis in (0, 1))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, down = (x - left)[..., None], (y - top)[..., None]
    margin = 400
    mode = {"mode": "reflect"} if border == "reflect" else {"mode": "constant", "constant_values": geometry.FILL}
    wide = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), **mode).astype(np.float64)
    top, left = top.clip(-margin, height + margin - 2) + margin, left.clip(-margin, width + margin - 2) + margin
    upper = wide[top, left] * (1 - right) + wide[top, left + 1] * right
    lower = wide[top + 1, left] * (1 - right) + wide[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def test_map_then_inverse_is_identity():
    maps = random_maps(200)
    points = np.random.default_rng(1).uniform(-50, 250, (200, 9, 2))
    there = geometry.apply_to_points(maps, points)
    back = geometry.apply_to_points(geometry.invert(maps), there)
    assert np.abs(back - points).max() < 1e-9


def test_composed_map_does_what_its_parts_do_in_turn():
    first, second, third = (random_maps(50, seed=seed) for seed in range(3))
    points = np.random.default_rng(3).uniform(0, 100, (50, 4, 2))
    in_turn = points
    for maps in (first, second, third):
        in_turn = geometry.apply_to_points(maps, in_turn)
    at_once = geometry.apply_to_points(geometry.compose(first, second, third), points)
    assert np.abs(at_once - in_turn).max() < 1e-9


@pytest.mark.parametrize(
    ("horizontal", "vertical", "mirrors"), [(1, 0, True), (0, 1, True), (1, 1, False), (0, 0, False)]
)
def test_flipping_twice_is_identity_and_only_one_flip_mirrors(horizontal, vertical, mirrors):
    once = geometry.flips([horizontal], [vertical], image_size=(30, 40))
    assert np.array_equal(geometry.compose(once, once), geometry.identity(1))
    assert geometry.mirrored(once).tolist() == [mirrors]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(256, 256), (256, 400), (700, 256), (31, 47)])
def test_each_fit_shows_what_it_promises(fit, size):
    maps = geometry.resize_and_crop([size], image_size=(280, 210), fit=fit)
    corners = geometry.apply_to_points(maps, [[[0, 0], [size[1], size[0]]]])[0]
    covers = (corners[0] <= 1).all() and (corners[1] >= np.array([210, 280]) - 1).all()
    inside = (corners[0] >= -1).all() and (corners[1] <= np.array([210, 280]) + 1).all()
    assert {"crop": covers, "letterbox": inside, "stretch": covers and inside}[fit]
    assert np.abs(corners.mean(axis=0) - [105, 140]).max() <= 0.5  # centred, on whole pixels


def test_crop_fraction_resizes_and_crops_as_timm_does():
    scale = 235 / 300  # floor(224 / 0.95) covered by the short side, then the middle 224
    maps = geometry.resize_and_crop([[300, 400]], image_size=(224, 224), fit="crop", crop_fraction=0.95)
    expected = [[scale, 0, np.rint(-(400 * scale - 224) / 2)], [0, scale, np.rint(-(235 - 224) / 2)]]
    assert np.allclose(maps[0], expected)


def test_position_moves_a_crop_from_edge_to_edge():
    corners = np.array([[0.0, 0.0], [1.0, 1.0]])
    maps = geometry.resize_and_crop(
        [[256, 400]] * 2, image_size=(224, 224), fit="crop", crop_fraction=0.875, position=corners
    )
    assert maps[:, :, 2].tolist() == [[0, 0], [224 - 400, 224 - 256]]


@pytest.mark.parametrize("flip", [(False, False), (True, False), (False, True), (True, True)])
def test_whole_pixel_crops_and_flips_are_exact(flip):
    photo = random_photo(60, 80, blur=0)
    crop = geometry.boxes_to_frame([[7, 11, 40, 30]], image_size=(30, 40))
    affine = geometry.compose(crop, geometry.flips([flip[0]], [flip[1]], image_size=(30, 40)))
    seen = geometry.warp_image(photo, affine[0], image_size=(30, 40), border="reflect")
    part = photo[11:41, 7:47]
    assert np.array_equal(seen, part[:: -1 if flip[1] else 1, :: -1 if flip[0] else 1])


@pytest.mark.parametrize("flip", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("box", [(0, 0, 80, 60), (7, 11, 40, 30), (30, 0, 50, 21), (3, 4, 64, 55)])
def test_whole_pixel_boxes_are_resized_as_plain_bilinear_does_inside(flip, box):
    photo = random_photo(60, 80)
    spread = geometry.boxes_to_frame([box], image_size=(50, 60))
    affine = geometry.compose(spread, geometry.flips([flip[0]], [flip[1]], image_size=(50, 60)))[0]
    seen = geometry.warp_image(photo, affine, image_size=(50, 60), border="reflect")
    off = np.abs(seen - bilinear(photo, affine, (50, 60), "reflect"))
    assert off[2:-2, 2:-2].max() < 1.1


def test_half_pixel_shift_is_the_mean_of_neighbours():
    photo = random_photo(20, 20, blur=0)
    affine = np.array([[1.0, 0, -0.5], [0, 1, 0]])
    seen = geometry.warp_image(photo, affine, image_size=(20, 19), border="reflect").astype(float)
    mean = (photo[:, :-1].astype(float) + photo[:, 1:]) / 2
    assert np.abs(seen - mean).max() <= 0.5


@pytest.mark.parametrize("border", ["reflect", "fill"])
def test_opencv_samples_as_plain_bilinear_does(border):
    photo = random_photo(130, 170)
    for affine in random_maps(12):
        seen = geometry.warp_image(photo, affine, image_size=(120, 90), border=border)
        off = np.abs(seen - bilinear(photo, affine, (120, 90), border))
        assert off.mean() < 0.5
        assert off.max() < 2.5  # OpenCV 4 rounds places to 1/32 pixel; OpenCV 5 is exact to rounding


@pytest.mark.parametrize("border", ["reflect", "fill"])
def test_torch_samples_as_plain_bilinear_does_whatever_the_sizes_in_a_batch(border):
    torch = pytest.importorskip("torch")
    photos = [random_photo(130, 170, seed=1), random_photo(90, 60, seed=2), random_photo(17, 140, seed=3)]
    maps, sizes = random_maps(3), [photo.shape[:2] for photo in photos]
    padded = np.full((3, 130, 170, 3), geometry.FILL, np.uint8)
    for row, photo in zip(padded, photos, strict=True):
        row[: photo.shape[0], : photo.shape[1]] = photo
    seen = geometry.warp_batch(torch.from_numpy(padded), maps, sizes=sizes, image_size=(120, 90), border=border)
    for index, photo in enumerate(photos):
        plain = bilinear(photo, maps[index], (120, 90), border)
        assert np.abs(seen[index].permute(1, 2, 0).numpy() - plain).max() < 0.05


def test_a_photo_of_one_pixel_can_be_sampled():
    torch = pytest.importorskip("torch")
    photo = np.full((1, 1, 3), 77, np.uint8)
    affine = geometry.resize_and_crop([[1, 1]], image_size=(16, 16), fit="crop", crop_fraction=0.875)
    seen = geometry.warp_image(photo, affine[0], image_size=(16, 16), border="reflect")
    batch = geometry.warp_batch(
        torch.from_numpy(photo[None]), affine, sizes=[[1, 1]], image_size=(16, 16), border="reflect"
    )
    assert (seen == 77).all()
    assert (batch == 77).all()


@pytest.mark.parametrize("seed", range(8))
def test_a_dot_lands_where_its_point_does(seed):
    dot = np.array([83.3, 66.8])
    columns, rows = np.arange(170) + 0.5, np.arange(130)[:, None] + 0.5
    light = 250 * np.exp(-((columns - dot[0]) ** 2 + (rows - dot[1]) ** 2) / (2 * 3.0**2))
    photo = np.repeat(light.round().astype(np.uint8)[..., None], 3, axis=2)
    affine = random_maps(1, seed=seed)
    seen = geometry.warp_image(photo, affine[0], image_size=(120, 90), border="reflect").astype(float)[..., 0]
    place = geometry.apply_to_points(affine, [[dot]])[0, 0]
    x, y = np.meshgrid(np.arange(90) + 0.5, np.arange(120) + 0.5)
    near = seen * (np.hypot(x - place[0], y - place[1]) < 16)
    assert np.abs([(near * x).sum() / near.sum(), (near * y).sum() / near.sum()] - place).max() < 0.05


def test_strong_shrinking_averages_instead_of_skipping():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    affine = geometry.resize_and_crop([[400, 400]], image_size=(100, 100), fit="stretch")
    windows = geometry.find_windows(affine, [[400, 400]], image_size=(100, 100), border="reflect")
    cut = windows.cut(stripes, 0)
    seen = geometry.warp_image(cut, windows.affine[0], image_size=(100, 100), border="reflect")
    assert cut.shape == (100, 100, 3)
    assert np.abs(seen.astype(int) - 127).max() <= 1


def test_shrinking_keeps_points_in_place():
    sizes = [[1003, 777]]
    affine = geometry.resize_and_crop(sizes, image_size=(90, 64), fit="crop", crop_fraction=0.875)
    windows = geometry.find_windows(affine, sizes, image_size=(90, 64), border="reflect")
    top, left, bottom, right = windows.boxes[0]
    in_window = np.array([[[0.0, 0.0], windows.sizes[0, ::-1]]])
    in_photo = np.array([[[left, top], [right, bottom]]])
    through_window = geometry.apply_to_points(windows.affine, in_window)
    assert np.allclose(through_window, geometry.apply_to_points(affine, in_photo))


def maps_around(places, image_size=(120, 90)):
    """Upright and turned maps whose frames are centred on the given places of the photo, magnified twice."""
    boxes = [[x - 22.98, y - 29.98, 45, 60] for x, y in places]
    upright = geometry.boxes_to_frame(boxes, image_size=image_size)
    degrees = np.linspace(10, 170, len(places))
    turned = geometry.turns(degrees, np.ones(len(places)), np.zeros((len(places), 2)), image_size=image_size)
    return np.concatenate([upright, geometry.compose(upright, turned)])


@pytest.mark.parametrize("border", ["reflect", "fill"])
def test_a_window_holds_all_that_its_map_reads_inside_and_at_every_edge(border):
    photo = random_photo(300, 500, blur=0)
    maps = maps_around([(x, y) for x in (5, 240, 493) for y in (-9, 155, 298)])
    windows = geometry.find_windows(maps, [photo.shape[:2]] * len(maps), image_size=(120, 90), border=border)
    for index, affine in enumerate(maps):
        whole = geometry.warp_image(photo, affine, image_size=(120, 90), border=border)
        cut = windows.cut(photo, index)
        seen = geometry.warp_image(cut, windows.affine[index], image_size=(120, 90), border=border)
        assert np.abs(seen.astype(int) - whole).max() <= 1
    assert (np.prod(windows.sizes, axis=1) < 300 * 500 / 3).all()


def test_a_map_that_looks_beside_the_photo_sees_fill():
    photo = random_photo(50, 50)
    affine = geometry.scale_and_shift(np.ones((1, 2)), np.array([[500.0, 0]]))
    windows = geometry.find_windows(affine, [[50, 50]], image_size=(32, 32), border="fill")
    seen = geometry.warp_image(windows.cut(photo, 0), windows.affine[0], image_size=(32, 32), border="fill")
    assert (seen == geometry.FILL).all()


def test_letterbox_bars_are_grey_and_the_photo_is_whole():
    photo = np.full((50, 100, 3), 200, np.uint8)
    affine = geometry.resize_and_crop([[50, 100]], image_size=(100, 100), fit="letterbox")
    seen = geometry.warp_image(photo, affine[0], image_size=(100, 100), border="fill")
    assert (seen[:25] == geometry.FILL).all()
    assert (seen[75:] == geometry.FILL).all()
    assert (seen[25:75] == 200).all()


def test_letterbox_frame_holds_the_bars_and_stretch_keeps_the_photos_aspect():
    frames = {fit: geometry.frames([[100, 300]], image_size=(100, 200), fit=fit)[0].tolist() for fit in FITS}
    assert frames["crop"] == [0, 0, 300, 100, 2]
    assert frames["letterbox"] == [0, -25, 300, 150, 2]
    assert frames["stretch"] == [0, 0, 300, 100, 3]


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((5, 6), np.uint8), r"uint8 of shape \(5, 6\)"),
        (np.zeros((5, 6, 4), np.uint8), r"uint8 of shape \(5, 6, 4\)"),
        (np.zeros((5, 6, 3), np.float32), r"float32 of shape \(5, 6, 3\)"),
    ],
)
def test_an_image_that_is_not_rgb_bytes_is_named(image, got):
    with pytest.raises(HeadstartError, match=got):
        geometry.warp_image(image, np.eye(2, 3), image_size=(4, 4), border="reflect")
