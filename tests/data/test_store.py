import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from headstart.data.decoding import CoverRule, decode
from headstart.data.reading import look_at_files, read_in_order
from headstart.data.records import FORMAT
from headstart.data.shards import ContentSet, ShardWriter, committed_shards
from headstart.data.store import PixelStore, StoreSettings, fill_store, plan_store
from headstart.data.store_place import estimate_raw_bytes
from headstart.data.table import SampleTable, table_from_columns
from headstart.errors import StoreError
from headstart.recipe import Recipe

SETTINGS = StoreSettings((28, 28))


def photo(seed: int, height: int = 40, width: int = 60) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_photos(folder: Path, count: int, *, first: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for seed in range(first, first + count):
        photo(seed).save(folder / f"{seed:05}.jpg", quality=90)
    return folder


def table_of(folder: Path) -> SampleTable:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return table_from_columns(paths, [0] * len(paths), root=folder, class_names=("a",))


def filled(folder: Path, store: Path, settings: StoreSettings = SETTINGS, **options) -> tuple[SampleTable, PixelStore]:
    return fill_store(table_of(folder), settings, store, quiet=True, **options)


def contents(store: PixelStore) -> list[bytes]:
    return [store.read(record).tobytes() for record in range(len(store))]


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file() and os.access(path, os.R_OK))
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def reasons(table: SampleTable) -> dict[str, str | None]:
    return dict(table.frame.select("path", "excluded").iter_rows())


@pytest.fixture
def photos(tmp_path) -> Path:
    return write_photos(tmp_path / "photos", 30)


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_the_store_gives_what_the_decoder_gave(photos, tmp_path, encoding):
    table, store = filled(photos, tmp_path / "store", StoreSettings((28, 28), encoding=encoding))
    for path, record in table.frame.select("path", "record").iter_rows():
        expected = decode((photos / path).read_bytes(), cover=CoverRule((28, 28)), max_pixels=10**6)
        pixels = store.read(record)
        assert np.abs(pixels.astype(int) - expected.pixels).max() <= (0 if encoding == "raw" else 12)
        assert tuple(store.sizes[record]) == pixels.shape[:2] == (32, 48)
        assert tuple(store.scales[record]) == expected.scale
        assert tuple(store.original_sizes[record]) == (40, 60)


def test_records_stand_in_the_order_of_the_table_for_any_number_of_threads(photos, tmp_path):
    stores = [filled(photos, tmp_path / str(threads), num_threads=threads) for threads in (1, 5)]
    assert [table.frame["record"].to_list() for table, _ in stores] == [list(range(30))] * 2
    assert contents(stores[0][1]) == contents(stores[1][1])
    assert stores[0][1].fingerprint == stores[1][1].fingerprint


def test_copies_share_one_record(photos, tmp_path):
    shutil.copy(photos / "00003.jpg", photos / "zz_copy.jpg")
    table, store = filled(photos, tmp_path / "store")
    assert len(store) == 30
    assert table.frame.filter(pl.col("path") == "zz_copy.jpg")["record"].item() == 3


def test_a_file_listed_twice_is_read_once(photos, tmp_path):
    table = table_from_columns(["00001.jpg", "00001.jpg", "00002.jpg"], [0, 0, 0], root=photos, class_names=("a",))
    table, store = fill_store(table, SETTINGS, tmp_path / "store", quiet=True)
    assert table.frame["record"].to_list() == [0, 0, 1]
    assert len(store) == 2


def test_a_known_store_is_not_written_again_and_new_and_changed_files_are_added(photos, tmp_path):
    first, store = filled(photos, tmp_path / "store")
    before = files_of(tmp_path / "store")
    again, _ = filled(photos, tmp_path / "store")
    assert again.frame.equals(first.frame)
    assert files_of(tmp_path / "store") == before
    photo(99).save(photos / "00003.jpg")
    photo(98).save(photos / "new.jpg")
    table, grown = filled(photos, tmp_path / "store")
    records = dict(table.frame.select("path", "record").iter_rows())
    assert (records["00003.jpg"], records["new.jpg"], records["00004.jpg"]) == (30, 31, 4)
    assert grown.fingerprint != store.fingerprint
    assert contents(grown)[:30] == contents(store)


def test_known_files_are_not_opened_again(photos, tmp_path):
    """Bytes are changed under an unchanged size and time: only a run that opens the file would notice."""
    filled(photos, tmp_path / "store")
    path = photos / "00000.jpg"
    stamp, size = path.stat(), path.stat().st_size
    path.write_bytes(b"x" * size)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    table, _ = filled(photos, tmp_path / "store")
    assert table.excluded_counts == {}


def test_a_part_of_the_data_reuses_the_store_of_the_whole(photos, tmp_path):
    _, whole = filled(photos, tmp_path / "store")
    part = table_from_columns(["00007.jpg", "00002.jpg"], [0, 0], root=photos, class_names=("a",))
    table, store = fill_store(part, SETTINGS, tmp_path / "store", quiet=True)
    assert table.frame["record"].to_list() == [7, 2]
    assert store.fingerprint == whole.fingerprint


def hard_folder(folder: Path) -> Path:
    """Everything that goes wrong in real folders, beside three good photos."""
    write_photos(folder, 2)
    jpeg = (folder / "00000.jpg").read_bytes()
    (folder / "바다").mkdir()
    photo(50).save(folder / "바다" / "여름 휴가.jpg")
    (folder / "empty.jpg").touch()
    (folder / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "text.jpg").write_text("not a photo at all, whatever the name says")
    photo(51).convert("RGBA").save(folder / "alpha.jpg", "PNG")
    photo(52).convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(53).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27).save(folder / "deep.png")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    whole = io.BytesIO()
    photo(54).save(whole, "PNG")
    huge = whole.getvalue()[:16] + (30_000).to_bytes(4, "big") * 2 + whole.getvalue()[24:]
    (folder / "huge.png").write_bytes(huge)
    os.mkfifo(folder / "pipe.jpg")
    return folder


BAD = {
    "empty.jpg": "empty",
    "cut.jpg": "truncated",
    "text.jpg": "not an image",
    "gone.jpg": "missing",
    "huge.png": "too many pixels",
    "pipe.jpg": "unreadable",
}


def test_every_kind_of_bad_file_has_its_reason_and_the_folder_is_left_as_it_was(tmp_path):
    folder = hard_folder(tmp_path / "photos")
    bytes_before = files_of(folder)
    table, store = filled(folder, tmp_path / "store")
    found = reasons(table)
    assert {path: reason for path, reason in found.items() if reason} == BAD
    assert table.frame.height == table.kept.height + sum(table.excluded_counts.values()) == 13
    assert table.frame.filter(pl.col("excluded").is_not_null() & pl.col("detail").is_null()).is_empty()
    assert table.kept["record"].to_list() == list(range(7)) == list(range(len(store)))
    assert table.frame.filter(pl.col("path") == "turned.jpg").select("height", "width").row(0) == (60, 40)
    assert files_of(folder) == bytes_before


def test_bad_files_are_not_read_again_either(tmp_path):
    folder = hard_folder(tmp_path / "photos")
    first, _ = filled(folder, tmp_path / "store")
    before = files_of(tmp_path / "store")
    second, _ = filled(folder, tmp_path / "store")
    assert second.frame.equals(first.frame)
    assert files_of(tmp_path / "store") == before


def test_missing_files_name_the_link_and_mended_files_come_in(tmp_path):
    folder = hard_folder(tmp_path / "photos")
    table, _ = filled(folder, tmp_path / "store")
    detail = table.frame.filter(pl.col("path") == "gone.jpg")["detail"].item()
    assert "a link to" in detail
    assert "nowhere.jpg" in detail
    photo(60).save(folder / "empty.jpg")
    table, _ = filled(folder, tmp_path / "store")
    assert reasons(table)["empty.jpg"] is None


def test_a_file_without_permission_is_unreadable_until_it_may_be_read(photos, tmp_path):
    """Root may read everything, so another user looks, in a process of its own."""
    (photos / "00001.jpg").chmod(0)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from headstart.data.table import table_from_columns\n"
        "from headstart.data.store import StoreSettings, fill_store\n"
        "os.getuid() == 0 and os.setuid(65534)\n"
        "paths = sorted(p.name for p in Path(sys.argv[1]).iterdir())\n"
        "table = table_from_columns(paths, [0] * len(paths), root=Path(sys.argv[1]), class_names=('a',))\n"
        "table, _ = fill_store(table, StoreSettings((28, 28)), Path(sys.argv[2]), quiet=True)\n"
        "print(table.excluded_counts, table.frame['detail'][1])"
    )
    for folder in (photos, *photos.parents[:-2]):  # all but / and the folder of temporary files
        folder.chmod(folder.stat().st_mode | 0o755)
    (tmp_path / "store").mkdir(mode=0o777)
    (tmp_path / "store").chmod(0o777)
    result = subprocess.run([sys.executable, "-c", code, photos, tmp_path / "store"], capture_output=True, text=True)
    assert result.stdout.strip() == "{'unreadable': 1} Permission denied", result.stderr
    (photos / "00001.jpg").chmod(0o644)
    table, _ = filled(photos, tmp_path / "store")
    assert table.excluded_counts == {}


def test_rows_excluded_before_are_left_alone(photos, tmp_path):
    table = table_from_columns(["00000.jpg", "00001.jpg"], [0, None], root=photos, class_names=("a",))
    table, store = fill_store(table, SETTINGS, tmp_path / "store", quiet=True)
    assert table.frame["excluded"].to_list() == [None, "no label"]
    assert table.frame["record"].to_list() == [0, None]
    assert len(store) == 1


def test_a_table_without_any_usable_file_gives_an_empty_store(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("text")
    table, store = filled(tmp_path / "photos", tmp_path / "store")
    assert (len(store), table.excluded_counts) == (0, {"not an image": 1})
    store.verify(quiet=True)


FILL = """
import sys; from pathlib import Path
from headstart.data import shards
from headstart.data.table import table_from_columns
from headstart.data.store import StoreSettings, fill_store
shards._MIN_FILES = 40
folder = Path(sys.argv[1])
paths = sorted(path.name for path in folder.iterdir())
table = table_from_columns(paths, [0] * len(paths), root=folder, class_names=("a",))
print("start", flush=True)
table, store = fill_store(table, StoreSettings((28, 28)), Path(sys.argv[2]), quiet=True)
print(store.fingerprint)
"""


def fill_in_another_process(folder: Path, store: Path, *, kill_after: int | None = None) -> tuple[int, list[str]]:
    """Fill in a process, and kill it as soon as so many shards are committed."""
    process = subprocess.Popen(
        [sys.executable, "-c", FILL, folder, store], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while kill_after is not None and process.poll() is None:
        if len(list(store.glob("shard-*.parquet"))) >= kill_after:
            process.kill()
            break
        time.sleep(0.0005)
    output, _ = process.communicate()
    return process.returncode, output.decode().split()


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory) -> Path:
    folder = write_photos(tmp_path_factory.mktemp("many") / "photos", 600)
    shutil.copy(folder / "00001.jpg", folder / "00400_copy.jpg")
    (folder / "00100_bad.jpg").write_text("bad")
    return folder


def test_a_store_killed_at_any_moment_ends_up_as_one_never_killed(many_photos, tmp_path):
    _, output = fill_in_another_process(many_photos, tmp_path / "whole")
    for shards in (1, 9):
        returncode, _ = fill_in_another_process(many_photos, tmp_path / "killed", kill_after=shards)
        assert returncode == -signal.SIGKILL
    left = len(committed_shards(tmp_path / "killed"))
    assert 9 <= left < 15
    assert fill_in_another_process(many_photos, tmp_path / "killed")[1] == output
    whole, killed = (files_of(tmp_path / name) for name in ("whole", "killed"))
    names = ("index.npy", "index.json", "shard-00000.bin", "shard-00014.bin", "shard-00014.parquet")
    assert {Path(path).name for path in whole} == {Path(path).name for path in killed}
    for name in names:
        assert whole[str(tmp_path / "whole" / name)][0] == killed[str(tmp_path / "killed" / name)][0], name


def test_ctrl_c_keeps_what_was_read(many_photos, tmp_path):
    code = FILL.replace("shards._MIN_FILES = 40", "shards._MIN_FILES = 10**6")
    process = subprocess.Popen([sys.executable, "-c", code, many_photos, tmp_path / "store"], stderr=subprocess.PIPE)
    part = tmp_path / "store" / "shard-00000.bin.partial"
    while process.poll() is None and not (part.exists() and part.stat().st_size > 100_000):
        time.sleep(0.0005)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate()[1]
    assert 10 < committed_shards(tmp_path / "store")[0].num_files < 600
    assert not list((tmp_path / "store").glob("*.partial"))
    (_, store), (_, whole) = (filled(many_photos, tmp_path / name) for name in ("store", "whole"))
    assert contents(store) == contents(whole)
    assert store.fingerprint == whole.fingerprint


def test_a_commit_that_was_interrupted_can_be_done_again(photos, tmp_path):
    writer = ShardWriter(tmp_path, [])
    writer.append({"path": "a", "size": 1}, b"abc")
    (tmp_path / "shard-00000.parquet.partial").mkdir()  # in the way: the commit stops half way
    with pytest.raises(IsADirectoryError):
        writer.commit()
    (tmp_path / "shard-00000.parquet.partial").rmdir()
    writer.commit()
    assert [(shard.num_bytes, shard.num_files) for shard in committed_shards(tmp_path)] == [(3, 1)]


def test_two_runs_at_once_make_one_sound_store(many_photos, tmp_path):
    commands = [[sys.executable, "-c", FILL, many_photos, tmp_path / "store"]] * 2
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
    outputs = {process.communicate()[0] for process in processes}
    assert len(outputs) == 1
    store = PixelStore.open(tmp_path / "store")
    assert len(store) == 600
    store.verify(quiet=True)


def test_a_full_disk_says_what_is_needed_and_keeps_what_is_committed(tmp_path):
    """A limit on the size of files stands for a full disk: the system refuses to write on in the same way."""
    folder = write_photos(tmp_path / "photos", 100)
    photo(7, 40, 6000).save(folder / "00090_wide.jpg")  # stored as 461 kB, more than the limit
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
    fill = FILL.replace("shards._MIN_FILES = 40", "shards._MIN_BYTES = 100_000")
    command = [sys.executable, "-c", limit + fill, folder, tmp_path / "store"]
    message = subprocess.run(command, capture_output=True, text=True).stderr
    assert re.search(r"StoreError: --store-dir must be a folder with about \S+ kB free for the \d+ photos", message)
    assert "--store jpeg (about an eighth of the space), or --store-dir on a larger disk" in message
    assert f"free in {tmp_path / 'store'}" in message
    kept = [shard.num_files for shard in committed_shards(tmp_path / "store")]
    assert kept == [22, 22, 22, 22]
    assert not list((tmp_path / "store").glob("*.partial"))
    assert len(filled(folder, tmp_path / "store")[1]) == 101


def test_a_store_folder_that_cannot_be_made_is_named(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"--store-dir must be a folder that can be written; got '.*file/store'"):
        filled(photos, tmp_path / "file" / "store")


def test_a_folder_of_other_settings_is_refused(photos, tmp_path):
    filled(photos, tmp_path / "store")
    with pytest.raises(StoreError, match=r"'image_size': \[56, 56\].*got.*'image_size': \[28, 28\].*another folder"):
        filled(photos, tmp_path / "store", StoreSettings((56, 56)))


def damage(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


def test_a_flipped_bit_is_found_on_opening_and_the_shard_is_read_again(photos, tmp_path):
    _, store = filled(photos, tmp_path / "store")
    expected = contents(store)
    damage(tmp_path / "store" / "shard-00000.bin", 5000)
    with pytest.raises(StoreError, match=r"damaged records: 1 in shard-00000.bin. Run headstart check"):
        PixelStore.open(tmp_path / "store")
    with pytest.raises(StoreError, match="damaged records: 1 in"):
        store.verify(quiet=True)
    _, mended = filled(photos, tmp_path / "store")
    assert contents(mended) == expected


@pytest.mark.parametrize("name", ["index.npy", "index.json", "shard-00000.bin", "shard-00000.parquet", "store.json"])
@pytest.mark.parametrize("harm", ["cut", "remove", "garbage"])
def test_whatever_is_harmed_is_mended_and_never_trusted(photos, tmp_path, name, harm):
    shutil.copy(photos / "00002.jpg", photos / "copy.jpg")
    _, store = filled(photos, tmp_path / "store")
    expected, path = contents(store), tmp_path / "store" / name
    data = path.read_bytes()
    path.unlink() if harm == "remove" else path.write_bytes(data[: len(data) // 2] if harm == "cut" else b"\7" * 99)
    if name.startswith(("index", "shard-00000.bin")):
        with pytest.raises(StoreError, match=r"pixel store|index"):
            PixelStore.open(tmp_path / "store")
    table, mended = filled(photos, tmp_path / "store")
    assert contents(mended) == expected
    assert table.frame["record"].to_list() == [*range(30), 2]


def test_a_copy_of_a_record_in_a_lost_shard_is_read_again(photos, tmp_path):
    filled(photos, tmp_path / "store")
    shutil.copy(photos / "00002.jpg", photos / "copy.jpg")
    filled(photos, tmp_path / "store")  # a second shard: the copy, without bytes
    (photos / "00002.jpg").unlink()
    (tmp_path / "store" / "shard-00000.bin").unlink()
    table, store = filled(photos, tmp_path / "store")
    record = table.frame.filter(pl.col("path") == "copy.jpg")["record"].item()
    expected = decode((photos / "copy.jpg").read_bytes(), cover=CoverRule((28, 28)), max_pixels=10**6).pixels
    assert np.array_equal(store.read(record), expected)


def test_opening_what_is_not_there_says_so(tmp_path):
    with pytest.raises(StoreError, match=r"must be complete; got 'no index.json'. Run headstart check"):
        PixelStore.open(tmp_path)


def test_a_store_of_another_format_is_refused(photos, tmp_path):
    filled(photos, tmp_path / "store")
    header = tmp_path / "store" / "index.json"
    header.write_text(header.read_text().replace(f'"format": {FORMAT}', '"format": 7'))
    with pytest.raises(StoreError, match=rf"format must be {FORMAT}; got 7"):
        PixelStore.open(tmp_path / "store")


def test_a_record_that_is_not_there_is_named(photos, tmp_path):
    _, store = filled(photos, tmp_path / "store")
    with pytest.raises(StoreError, match=r"record must be from 0 to 29; got 30"):
        store.read(30)


def test_raw_records_cannot_be_written_through(photos, tmp_path):
    _, store = filled(photos, tmp_path / "store")
    with pytest.raises(ValueError, match="read-only"):
        store.read(0)[0, 0, 0] = 1


def test_the_content_set_knows_what_was_added_before_and_after_settling():
    hashes = [f"{number:016x}{0:016x}" for number in (5, 2**63, 2**64 - 1)]
    contents_ = ContentSet(pl.Series(hashes[:1]))
    contents_.add(hashes[1])
    assert [digest in contents_ for digest in hashes] == [True, True, False]
    contents_.settle()
    assert [digest in contents_ for digest in hashes] == [True, True, False]


def test_the_place_depends_on_data_and_settings_and_auto_stays_with_what_is_there(photos, tmp_path):
    recipe = Recipe(store_dir=str(tmp_path / "cache"))
    table = table_of(photos)
    settings, directory = plan_store(recipe, table, image_size=(28, 28))
    assert settings.encoding == "raw"
    assert directory.is_relative_to(tmp_path / "cache")
    assert directory.name.startswith("photos-")
    _, jpeg = plan_store(recipe.updated(store="jpeg"), table, image_size=(28, 28))
    _, larger = plan_store(recipe, table, image_size=(56, 56))
    _, elsewhere = plan_store(recipe, table, image_size=(28, 28), source=tmp_path / "photos.zip")
    assert len({directory, jpeg, larger, elsewhere}) == 4
    fill_store(table, StoreSettings((28, 28), encoding="jpeg"), jpeg, quiet=True)
    assert plan_store(recipe, table, image_size=(28, 28))[1] == jpeg


def test_the_place_follows_the_environment(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "elsewhere"))
    assert plan_store(Recipe(), table_of(photos), image_size=(28, 28))[1].is_relative_to(tmp_path / "elsewhere")


def test_the_estimate_of_raw_bytes_is_right(photos, tmp_path):
    table, store = filled(photos, tmp_path / "store")
    assert estimate_raw_bytes(table, SETTINGS) == 30 * 32 * 48 * 3 == int(store.sizes.prod(axis=1).sum()) * 3


def test_only_a_window_of_photos_is_read_ahead(photos):
    """The first photo is taken, the files are removed: only those in the window were read by then."""
    with ThreadPoolExecutor(2) as pool:
        files = look_at_files(pl.Series([str(path) for path in sorted(photos.iterdir())]), pool)
        readings = read_in_order(files, SETTINGS, ContentSet(pl.Series([], dtype=pl.String)), pool=pool, window=5)
        found = [next(readings)]
        time.sleep(0.3)
        shutil.rmtree(photos)
        found += readings
    assert [reading.row.get("excluded") for reading in found] == [None] * 5 + ["missing"] * 25


@pytest.mark.real_data
def test_copies_across_the_given_split_of_the_scenes_share_records(real_data, tmp_path):
    table, store = filled(real_data / "scenes_intel100" / "test", tmp_path / "store")
    assert table.frame.height == 2158
    assert len(store) == table.kept["content_hash"].n_unique()
