"""Archives: contents arrive whole and named properly, and nothing is ever written outside."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from headstart.data.archives import copy_members, list_members, unpack
from headstart.data.sources import read_source
from headstart.errors import SourceError
from headstart.recipe import make_recipe

PHOTOS = {"photos/고양이/1.jpg": b"one", "photos/개/2.jpg": b"two"}
LARGE = 10**6


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], *special: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in special:
            archive.addfile(info)
    return path


def with_raw_names(path: Path, files: dict[bytes, bytes]) -> Path:
    """Write a zip as old tools do: names as bytes in some encoding, and no word about which."""
    stand_ins = {f"{number:0{len(name)}d}": name for number, name in enumerate(files)}
    make_zip(path, dict(zip(stand_ins, files.values(), strict=True)))
    data = path.read_bytes()
    for stand_in, name in stand_ins.items():
        data = data.replace(stand_in.encode(), name)
    path.write_bytes(data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_a_zip_arrives_whole_inside_its_top_folder(tmp_path: Path) -> None:
    unpacked = unpack(make_zip(tmp_path / "a.zip", PHOTOS), tmp_path / "out", max_bytes=LARGE)
    assert contents(unpacked.folder) == {"고양이/1.jpg": b"one", "개/2.jpg": b"two"}
    assert unpacked.folder.is_relative_to(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.TGZ", "w:gz"), ("a.tar.bz2", "w:bz2"), ("a.tar.xz", "w:xz")],
)
def test_tars_arrive_whole_in_every_compression(tmp_path: Path, name: str, mode: str) -> None:
    unpacked = unpack(make_tar(tmp_path / name, PHOTOS, mode=mode), tmp_path / "out", max_bytes=LARGE)
    assert contents(unpacked.folder) == {"고양이/1.jpg": b"one", "개/2.jpg": b"two"}


def test_a_top_folder_is_entered_only_where_it_is_alone(tmp_path: Path) -> None:
    files = {"cat/1.jpg": b"", "dog/2.jpg": b"", "__MACOSX/x": b""}
    assert "cat/1.jpg" in contents(unpack(make_zip(tmp_path / "a.zip", files), tmp_path / "o", max_bytes=9).folder)
    nested = {"p/p/cat/1.jpg": b"", "p/p/dog/2.jpg": b"", "__MACOSX/x": b""}
    assert "cat/1.jpg" in contents(unpack(make_zip(tmp_path / "b.zip", nested), tmp_path / "o", max_bytes=9).folder)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_members_are_named_and_copied_without_unpacking(tmp_path: Path, make: object) -> None:
    archive = tmp_path / ("a.zip" if make is make_zip else "a.tar")
    make(archive, {"./d/1.jpg": b"photo", "./d/1.json": b"{}", "./d/2.json": b"[1]"})
    assert list_members(archive, max_bytes=LARGE) == ["d/1.jpg", "d/1.json", "d/2.json"]
    found = copy_members(archive, ["d/2.json", "d/1.json"], tmp_path, max_bytes=LARGE)
    assert {name: path.read_bytes() for name, path in found.items()} == {"d/1.json": b"{}", "d/2.json": b"[1]"}
    assert list(copy_members(archive, ["d/2.json", "d/1.json"], tmp_path, max_bytes=2)) == ["d/1.json"]


def test_an_unchanged_archive_is_unpacked_once(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", PHOTOS)
    first = unpack(archive, tmp_path / "out", max_bytes=LARGE)
    (first.folder / "mark").touch()
    second = unpack(archive, tmp_path / "out", max_bytes=LARGE)
    assert (second.folder / "mark").exists()
    assert "reused" in second.notes[0]


def test_a_changed_archive_is_unpacked_anew_and_the_old_one_goes(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", PHOTOS)
    old = unpack(archive, tmp_path / "out", max_bytes=LARGE).folder
    make_zip(archive, PHOTOS | {"photos/개/3.jpg": b"three"})
    new = unpack(archive, tmp_path / "out", max_bytes=LARGE).folder
    assert "개/3.jpg" in contents(new)
    assert not old.exists()


def test_what_a_killed_run_left_aside_is_cleared(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", PHOTOS)
    name = unpack(archive, tmp_path / "out", max_bytes=LARGE).folder.parent.name.rsplit("-", 1)[0]
    os.utime(archive, (1, 1))
    (tmp_path / "out" / f".{name}.partial-dead").mkdir()
    unpack(archive, tmp_path / "out", max_bytes=LARGE)
    assert not list((tmp_path / "out").glob(".*partial*"))


@pytest.mark.parametrize("encoding", ["utf-8", "cp949"])
def test_names_without_a_stated_encoding_are_read_as_korean(tmp_path: Path, encoding: str) -> None:
    names = {"고양이/첫째.jpg".encode(encoding): b"1", "개/둘째.jpg".encode(encoding): b"2"}
    unpacked = unpack(with_raw_names(tmp_path / "a.zip", names), tmp_path / "out", max_bytes=LARGE)
    assert set(contents(unpacked.folder)) == {"고양이/첫째.jpg", "개/둘째.jpg"}
    assert unpacked.notes == (("Names in a.zip are in cp949, not UTF-8.",) if encoding == "cp949" else ())


def test_names_that_are_not_korean_either_are_read_as_cp437(tmp_path: Path) -> None:
    unpacked = unpack(with_raw_names(tmp_path / "a.zip", {b"caf\x82.jpg": b"1"}), tmp_path / "out", max_bytes=LARGE)
    assert set(contents(unpacked.folder)) == {"café.jpg"}


@pytest.mark.parametrize("name", ["../evil.jpg", "a/../../evil.jpg", "/evil.jpg", "C:/evil.jpg", "..\\evil.jpg"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_members_that_leave_the_folder_are_refused(tmp_path: Path, name: str, make: object) -> None:
    archive = tmp_path / ("a.zip" if make is make_zip else "a.tar")
    make(archive, {"ok.jpg": b"x", name: b"evil"})
    with pytest.raises(SourceError, match=r"must be a path inside the archive; got .*evil"):
        unpack(archive, tmp_path / "deep" / "out", max_bytes=LARGE)
    assert not list(tmp_path.rglob("*evil*"))
    assert [path.name for path in (tmp_path / "deep" / "out").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("info", "kind"),
    [
        (special("x", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
        (special("x", tarfile.LNKTYPE, "ok.jpg"), "a link"),
        (special("x", tarfile.CHRTYPE), "a device or pipe"),
        (special("x", tarfile.FIFOTYPE), "a device or pipe"),
    ],
)
def test_links_and_devices_in_tars_are_refused(tmp_path: Path, info: tarfile.TarInfo, kind: str) -> None:
    archive = make_tar(tmp_path / "a.tar", {"ok.jpg": b"x"}, info)
    with pytest.raises(SourceError, match=f"member 'x' must be a plain file or folder; got '{kind}'"):
        unpack(archive, tmp_path / "out", max_bytes=LARGE)


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("x")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(SourceError, match="must be a plain file or folder; got 'a link'"):
        unpack(tmp_path / "a.zip", tmp_path / "out", max_bytes=LARGE)


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"x.jpg": b"secret"})
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(SourceError, match="got 'an encrypted file'"):
        unpack(archive, tmp_path / "out", max_bytes=LARGE)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_named_twice_is_refused(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", {"x.jpg": b"1", "./x.jpg": b"2"})
    with pytest.raises(SourceError, match=r"member '\./x\.jpg' must be named once"):
        unpack(archive, tmp_path / "out", max_bytes=LARGE)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_more_than_the_stated_size_is_refused_and_leaves_nothing(tmp_path: Path, make: object) -> None:
    archive = tmp_path / ("a.zip" if make is make_zip else "a.tar")
    make(archive, {"a.jpg": bytes(600), "b.jpg": bytes(600)})
    with pytest.raises(SourceError, match=r"at most 1e-06 GB unpacked; got .*Raise --max-archive-gb"):
        unpack(archive, tmp_path / "out", max_bytes=1000)
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]


def test_the_size_is_counted_not_believed(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a.jpg": bytes(5_000_000)})
    true_size = (5_000_000).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(true_size, (10).to_bytes(4, "little")))
    with pytest.raises(SourceError):
        unpack(archive, tmp_path / "out", max_bytes=LARGE)
    assert not list((tmp_path / "out").rglob("*.jpg"))


@pytest.mark.parametrize(
    ("name", "mode"), [("a.zip", ""), ("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.bz2", "w:bz2")]
)
def test_damaged_archives_are_refused(tmp_path: Path, name: str, mode: str) -> None:
    files = {f"{number}.jpg": os.urandom(5000) for number in range(4)}
    archive = make_tar(tmp_path / name, files, mode=mode) if mode else make_zip(tmp_path / name, files)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"must be a whole archive; got .*Download or make it again"):
        unpack(archive, tmp_path / "out", max_bytes=LARGE)


def test_a_flipped_byte_inside_a_zip_is_noticed(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a.jpg": os.urandom(5000)})
    data = bytearray(archive.read_bytes())
    data[2500] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(SourceError, match="whole archive"):
        unpack(archive, tmp_path / "out", max_bytes=LARGE)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_an_archive_is_a_source_like_its_folder(tmp_path: Path, make: object) -> None:
    archive = tmp_path / ("a.zip" if make is make_zip else "a.tar")
    make(archive, PHOTOS | {"photos/labels.csv": "path,label\n개/2.jpg,x\n고양이/1.jpg,y\n".encode("cp949")})
    table = read_source(make_recipe({"data": str(archive)}), unpack_dir=tmp_path / "out")
    assert table.class_names == ("개", "고양이")
    assert all(Path(path).is_file() for path in table.absolute_paths(table.frame))


def test_a_table_in_an_archive_is_read(tmp_path: Path) -> None:
    files = {
        "d/labels.csv": b"path,label\nimages/1.jpg,x\nimages/2.jpg,y\n",
        "d/images/1.jpg": b"",
        "d/images/2.jpg": b"",
    }
    archive = make_zip(tmp_path / "a.zip", files)
    table = read_source(make_recipe({"data": str(archive)}), unpack_dir=tmp_path / "out")
    assert table.class_names == ("x", "y")
