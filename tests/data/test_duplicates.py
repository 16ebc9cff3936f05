import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageEnhance

from headstart.data.decoding import CoverRule, from_pixels
from headstart.data.duplicates import _is_crowded, _near_hashes, _neighbours_in_order, find_duplicates, near_identical
from headstart.data.hashing import PLAIN, content_hash, perceptual_hash, thumbnail
from headstart.data.store import StoreSettings, fill_store
from headstart.data.table import SampleTable, table_from_columns
from headstart.errors import HeadstartError


def photo(seed: int, size: int = 300) -> Image.Image:
    """A picture with structure at several scales, another one for each seed."""
    generator = np.random.default_rng(seed)
    layers = [
        Image.fromarray(generator.integers(0, 255, (cells, cells, 3), np.uint8)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        for cells in (3, 7, 20)
    ]
    return Image.blend(Image.blend(layers[0], layers[1], 0.5), layers[2], 0.3)


def sky(seed: int, size: int = 300) -> Image.Image:
    """A clear sky: a slope of blue with a little noise."""
    generator = np.random.default_rng(seed)
    top, bottom = generator.integers(90, 130), generator.integers(150, 200)
    slope = (
        np.linspace(top, bottom, size)[:, None, None] + np.array([-30, 0, 40]) + generator.normal(0, 3, (size, size, 1))
    )
    return Image.fromarray(slope.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def with_duplicates(folder: Path, files: dict[str, bytes], *, max_distance: int = 8) -> SampleTable:
    (folder / "photos").mkdir()
    for name, data in files.items():
        (folder / "photos" / name).write_bytes(data)
    names = sorted(files)
    table = table_from_columns(names, [0] * len(names), root=folder / "photos", class_names=("a",))
    table, store = fill_store(table, StoreSettings((224, 224)), folder / "store", quiet=True)
    return find_duplicates(table, store, max_distance=max_distance, quiet=True)


def sets(table: SampleTable, column: str) -> list[set[str]]:
    rows = table.frame.filter(pl.col(column).is_not_null()).group_by(column).agg("path").sort(column)
    return [set(paths) for paths in rows["path"]]


def changed(image: Image.Image) -> dict[str, bytes]:
    return {
        "again.jpg": jpeg(image, 60),
        "small.jpg": jpeg(image.resize((170, 170), Image.Resampling.LANCZOS)),
        "bright.jpg": jpeg(ImageEnhance.Brightness(image).enhance(1.15)),
        "pale.jpg": jpeg(ImageEnhance.Contrast(image).enhance(0.8)),
    }


def test_changed_copies_are_one_cluster_and_other_photos_are_not_in_it(tmp_path):
    files = {"original.jpg": jpeg(photo(1)), **changed(photo(1))}
    others = {f"other{seed}.jpg": jpeg(photo(seed)) for seed in range(2, 40)}
    table = with_duplicates(tmp_path, files | others)
    assert sets(table, "cluster") == [set(files)]
    assert sets(table, "copy_set") == []


def test_byte_identical_files_are_a_copy_set_and_in_a_cluster(tmp_path):
    one, two = jpeg(photo(1)), jpeg(photo(2))
    table = with_duplicates(tmp_path, {"a.jpg": one, "b.jpg": two, "c.jpg": one, "d.jpg": jpeg(photo(1), 50)})
    assert sets(table, "copy_set") == [{"a.jpg", "c.jpg"}]
    assert sets(table, "cluster") == [{"a.jpg", "c.jpg", "d.jpg"}]


def test_numbers_follow_the_order_of_the_table(tmp_path):
    files = {f"{name}.jpg": jpeg(photo(seed)) for name, seed in zip("abcdef", [1, 2, 3, 2, 1, 4], strict=True)}
    table = with_duplicates(tmp_path, files)
    assert table.frame["copy_set"].to_list() == [0, 1, None, 1, 0, None]
    assert table.frame["cluster"].to_list() == [0, 1, None, 1, 0, None]


def test_different_skies_and_blank_pages_are_not_copies(tmp_path):
    files = {f"sky{seed}.jpg": jpeg(sky(seed)) for seed in range(12)}
    files |= {f"page{level}.jpg": jpeg(Image.new("RGB", (300, 300), (level,) * 3)) for level in range(240, 252)}
    files["sky0_copy.jpg"] = files["sky0.jpg"]
    table = with_duplicates(tmp_path, files, max_distance=16)
    assert sets(table, "cluster") == [{"sky0.jpg", "sky0_copy.jpg"}]


def test_excluded_samples_have_no_cluster(tmp_path):
    table = with_duplicates(tmp_path, {"a.jpg": jpeg(photo(1)), "b.jpg": b"text", "c.jpg": jpeg(photo(1))})
    assert table.frame["cluster"].to_list() == [0, None, 0]


def test_an_empty_table_and_a_single_photo_have_no_duplicates(tmp_path):
    assert with_duplicates(tmp_path, {"a.jpg": jpeg(photo(1))}).frame["cluster"].to_list() == [None]
    (tmp_path / "none").mkdir()
    assert with_duplicates(tmp_path / "none", {"a.jpg": b"text"}).frame["cluster"].to_list() == [None]


def test_finding_again_gives_the_same_table(tmp_path):
    table = with_duplicates(tmp_path, {"a.jpg": jpeg(photo(1)), "b.jpg": jpeg(photo(1), 60)})
    _, store = fill_store(table, StoreSettings((224, 224)), tmp_path / "store", quiet=True)
    assert find_duplicates(table, store, max_distance=8, quiet=True).frame.equals(table.frame)


def test_distance_zero_still_joins_equal_hashes(tmp_path):
    table = with_duplicates(tmp_path, {"a.jpg": jpeg(photo(1)), "b.jpg": jpeg(photo(1), 85)}, max_distance=0)
    assert sets(table, "cluster") == [{"a.jpg", "b.jpg"}]


def test_equal_hashes_of_unlike_pictures_do_not_join_and_the_like_ones_do():
    """Hashes compare signs only; the thumbnails decide."""
    step = np.kron([[0, 200], [200, 0]], np.ones((16, 16))).astype(np.uint8)
    other = np.kron([[0, 200], [0, 200]], np.ones((16, 16))).astype(np.uint8)
    pairs = np.stack([step, step]), np.stack([step // 2 + 20, other])
    assert near_identical(*pairs, np.array([0, 0])).tolist() == [True, False]


def test_more_different_bits_need_more_alike_thumbnails():
    generator = np.random.default_rng(0)
    base = generator.integers(60, 190, (1, 32, 32)).astype(np.uint8)
    noisy = (base + generator.normal(0, 13, base.shape)).astype(np.uint8)
    found = near_identical(np.repeat(base, 2, 0), np.repeat(noisy, 2, 0), np.array([0, 8]))
    assert found.tolist() == [True, False]


def test_a_table_that_was_not_read_is_refused(tmp_path):
    table = table_from_columns(["a.jpg"], [0], root=tmp_path, class_names=("a",))
    with pytest.raises(
        HeadstartError, match=r"given with a column 'record'; got .*'sample_id'.* Call fill_store first"
    ):
        find_duplicates(table, None, max_distance=8)  # pyright: ignore[reportArgumentType]


def planted_hashes(count: int, flips: int) -> np.ndarray:
    """Random hashes, a tenth of them again with some bits flipped."""
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, count, dtype=np.uint64)
    masks = [sum(1 << int(bit) for bit in generator.choice(64, flips, replace=False)) for _ in range(count // 10)]
    hashes[-len(masks) :] = hashes[: len(masks)] ^ np.array(masks, np.uint64)
    return np.unique(hashes)


@pytest.mark.parametrize("count", [2000, 21_000])
def test_every_pair_of_near_hashes_is_found_by_either_index(count):
    hashes = planted_hashes(count, 8)
    found = np.concatenate(list(_near_hashes(hashes, 8)))
    pairs = {(int(a), int(b)) for a, b in found}
    assert len(pairs) >= count // 10
    assert (np.bitwise_count(hashes[found[:, 0]] ^ hashes[found[:, 1]]) <= 8).all()
    assert (found[:, 0] < found[:, 1]).all()


def test_crowded_hashes_are_compared_with_their_neighbours_only():
    crowded = np.arange(150_000, dtype=np.uint64) << np.uint64(40) | np.uint64(0xABCDE)
    assert _is_crowded(crowded)
    assert not _is_crowded(planted_hashes(30_000, 3))
    hashes = planted_hashes(3000, 1)
    pairs = np.unique(np.concatenate(list(_neighbours_in_order(hashes, 8))), axis=0)
    assert len(pairs) >= 295  # of 300: one flipped bit leaves the leading bits alone in most turns


def test_the_hash_bears_small_changes_and_tells_photos_apart():
    cover = CoverRule((224, 224))
    base = perceptual_hash(from_pixels(photo(1), cover=cover).pixels)
    for data in changed(photo(1)).values():
        again = perceptual_hash(from_pixels(Image.open(io.BytesIO(data)), cover=cover).pixels)
        assert (base ^ again).bit_count() <= 4
    others = [(base ^ perceptual_hash(np.asarray(photo(seed)))).bit_count() for seed in range(2, 60)]
    assert min(others) > 8
    assert perceptual_hash(np.asarray(sky(1))) == PLAIN != base


def test_the_thumbnail_is_grey_and_the_content_hash_has_32_digits():
    assert thumbnail(np.asarray(photo(1))).shape == (32, 32)
    assert len(content_hash(b"x")) == 32 == len(content_hash(b"y"))
    assert content_hash(b"x") != content_hash(b"y")


@pytest.mark.real_data
def test_bursts_are_clusters_and_persons_are_kept_apart(real_data, tmp_path):
    root = real_data / "ck48_emotion_by_subject"
    rows = pl.read_csv(root / "labels.csv")
    table = table_from_columns(rows["file"].to_list(), [0] * rows.height, root=root, class_names=("a",))
    table, store = fill_store(table, StoreSettings((48, 48)), tmp_path / "store", quiet=True)
    table = find_duplicates(table, store, max_distance=8, quiet=True)
    faces = rows.select("subject", "sequence").with_columns(table.frame["sample_id"], table.frame["cluster"])
    pairs = faces.join(faces, how="cross").filter(pl.col("sample_id") < pl.col("sample_id_right"))
    is_joined = pl.col("cluster").eq(pl.col("cluster_right")).fill_null(value=False)
    in_burst = pairs.filter(pl.col("sequence") == pl.col("sequence_right"))
    assert in_burst.height == 981
    assert in_burst.select(is_joined.mean()).item() > 0.97
    assert pairs.filter(is_joined & (pl.col("subject") != pl.col("subject_right"))).is_empty()


@pytest.mark.real_data
def test_scenes_have_few_small_clusters(real_data, tmp_path):
    root = real_data / "scenes_intel100"
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    table = table_from_columns(paths, [0] * len(paths), root=root, class_names=("a",))
    table, store = fill_store(table, StoreSettings((224, 224)), tmp_path / "store", quiet=True)
    table = find_duplicates(table, store, max_distance=8, quiet=True)
    assert {"test/street/21170.jpg", "train/buildings/4634.jpg"} in sets(table, "copy_set")
    assert {"train/glacier/10234.jpg", "train/mountain/7654.jpg"} in sets(table, "copy_set")
    assert len(sets(table, "copy_set")) == 2
    assert 6 <= len(sets(table, "cluster")) <= 12
    assert max(map(len, sets(table, "cluster"))) == 2
