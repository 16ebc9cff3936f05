"""The command line as a newcomer meets it: messages that say what to do, exit codes that scripts can trust."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from headstart.cli import COMMANDS, main
from headstart.progress import console
from headstart.recipe import Recipe
from headstart.runs import RunFolder
from small_run import SMALL_RUN

FLAGS = [
    part
    for name, value in (SMALL_RUN | {"epochs": 1, "probe_epochs": 2}).items()
    for part in (f"--{name.replace('_', '-')}", str(value))
]
README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def headstart(capsys):
    """Run a command; give its exit code, and all that it printed."""

    def run(*arguments):
        console.cache_clear()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return stop.value.code, printed.out + printed.err

    return run


@pytest.fixture
def refused(headstart):
    """Run a command that must be refused: exit code 2, one message; give the message."""

    def run(*arguments):
        code, text = headstart(*arguments)
        assert code == 2, text
        return text[text.index("Error: ") :]

    return run


@pytest.fixture
def photos(digits, tmp_path):
    """Three classes of ten digits, under names that trip up careless programs."""
    for digit, name in enumerate(("고양이", "강아지 🐶", "plain")):
        for number, picture in enumerate(sorted((digits / str(digit)).iterdir())[:10]):
            target = tmp_path / "내 사진" / name / f"사진 {number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, target)
    return tmp_path / "내 사진"


@pytest.fixture
def table(digits, tmp_path):
    """A table of 20 digits with columns of the test's choosing."""

    def write(header, *, name="labels.csv", encoding="utf-8"):
        paths = [path for digit in "01" for path in sorted((digits / digit).iterdir())[:10]]
        rows = [f"{path},{'일' if path.parent.name == '1' else '영'},{path.stem[-1]}" for path in paths]
        (tmp_path / name).write_text("\n".join([header, *rows]), encoding=encoding)
        return tmp_path / name

    return write


# --- help and usage


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(headstart, command):
    code, text = headstart(command, "--help")
    assert code == 0
    assert f"Usage: headstart {command}" in text


def test_help_imports_neither_torch_nor_the_table_library():
    script = "import sys; from headstart.cli import build_app; build_app()(['--help'], result_action='return_value')\n"
    script += "print('loaded:', *{'torch', 'polars', 'pydantic', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_a_schedule_is_drawn_without_torch():
    script = "import sys; sys.modules['torch'] = None; from headstart.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "schedule", "--recipe", "scenes/warmup-cosine"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "epoch 10  3.015e-04" in done.stdout


def test_training_says_what_it_read_before_torch_is_imported(digits, tmp_path):
    script = "import sys; sys.modules['torch'] = None; from headstart.cli import main; main(sys.argv[1:])"
    arguments = ["train", str(digits), "--out", str(tmp_path / "run"), "--backbone", "resnet10t"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert "300 photos listed; loading resnet10t" in done.stdout
    assert "torch" in done.stderr  # and only then it was asked for


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("check", r"headstart check must be given DATA \(the photos: .*got none. See headstart check --help"),
        ("check a b", "headstart check must be given no more than it takes; got 'b'. Put a name with spaces"),
        ("predict a", r"must be given IMAGES \(files, folders"),
        ("predict a b", r"must be given --out \(the CSV to write\); got none"),
        ("train a --out", r"--out must be followed by a value \(the run folder, new or empty\); got none"),
        ("train a --bogus", "--bogus must be a flag of headstart train; got no value"),
        ("predict a b --out c --top-k many", "--top-k must be a whole number; got 'many'"),
        ("train a --out b --out c", "--out must be given once; got 'c'"),
        ("predict a b --bogus 3", "Unknown option: --bogus"),
        ("sample letters x", 'Invalid value "letters" for NAME. Choose from: "digits", "faces"'),
        ("sample faces x --count many", "--count must be a whole number; got 'many'"),
        ("sample faces x --count 0", "--count must be at least 1; got 0. 600 is usual."),
        ("sample digits x --seed 3 --broken", "2 problems:(.|\\n)*--seed must be a flag of sample faces; got 3."),
        ("trian a", 'Unknown command "trian". Did you mean "train"?'),
        ("check a --epochs 3", "--epochs must be a flag of this command; got '3'"),
        ("evaluate a --epochs 3", "--epochs must be a flag of this command; got '3'"),
        ("train a", "train needs DATA and --out RUN"),
    ],
)
def test_a_mistyped_command_is_told_what_was_meant(refused, arguments, message):
    assert re.search(message, refused(*arguments.split()))


def test_all_bad_flags_stand_in_one_message_under_the_names_that_were_typed(refused, tmp_path):
    text = refused(
        "train", "x", "--out", tmp_path / "run", "--epochz", 3, "--lr", -1, "--fit", "letterbx", "--seed", "x"
    )
    assert "4 problems:" in text
    assert "--epochz must be a flag of this command; got '3'. Did you mean '--epochs'?" in text
    assert "--lr must be greater than 0; got '-1'." in text
    assert "got 'letterbx'. Did you mean 'letterbox'?" in text
    assert not (tmp_path / "run").exists()


def test_debug_shows_where_an_error_arose(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["check", "nowhere", "--debug"])
    assert "Traceback" in capsys.readouterr().err


# --- data that cannot be used


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: None, "No such file or folder"),
        (lambda place: place.mkdir(), "one folder of images per class; got 0 files"),
        (lambda place: (place / "a").mkdir(parents=True), "one folder of images per class"),
        (lambda place: place.write_text("hello"), "a CSV, TSV or Parquet table"),
    ],
)
def test_data_that_is_no_data_is_told_what_data_is(refused, tmp_path, make, message):
    make(tmp_path / "data")
    assert message in refused("check", tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a table with a header and rows; got 'an empty file'"),
        ("a.csv", b"path,label\n", "rows below its header"),
        ("a.csv", b"\xff\x01\x80" * 99, "text in UTF-8, UTF-16 or cp949"),
        ("a.zip", b"PK\x03\x04 no zip", "a whole archive"),
        ("a.parquet", b"no parquet", "a readable table"),
    ],
)
def test_a_damaged_file_is_told_so(refused, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert message in refused("check", tmp_path / name)


def test_photos_outside_class_folders_and_a_single_class_are_refused(refused, photos):
    text = refused("check", photos / "plain")
    assert "10 images outside class folders. Put the photos of each class into a folder" in text
    for name in ("고양이", "강아지 🐶"):
        shutil.rmtree(photos / name)
    assert "data with at least 2 classes; got ['plain']" in refused("check", photos)


def test_a_label_column_that_cannot_be_told_is_asked_for(refused, table):
    text = refused("check", table("a,b,c"))
    assert "must be a table with one column that can be the labels" in text
    assert "Name it: --label-column b." in text


def test_columns_that_are_not_there_are_named_together(refused, table):
    text = refused("check", table("path,label,who"), "--label-column", "foo", "--path-column", "bar")
    assert "--path-column must be a column of labels.csv: path, label, who; got 'bar'." in text
    assert "--label-column must be a column of labels.csv: path, label, who; got 'foo'." in text


def test_a_korean_table_in_cp949_is_read_and_its_columns_are_understood(headstart, table):
    code, text = headstart("check", table("경로,라벨,who", encoding="cp949"))
    assert code == 0
    assert "Column '라벨' of labels.csv was taken as the label column." in text
    assert "classes: 2 (영: 10, 일: 10)" in text


def test_names_with_spaces_and_emoji_pass_through(headstart, photos):
    code, text = headstart("check", photos)
    assert code == 0
    assert "강아지 🐶: 10" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "unterminated"), ("x", "a capture in parentheses"), ("(zz)", "found in the paths")]
)
def test_a_group_pattern_that_cannot_work_is_refused(refused, photos, pattern, message):
    text = refused("check", photos, "--group-pattern", pattern)
    assert text.startswith("Error: --group-pattern must be")
    assert message in text
    assert f"got {pattern!r}" in text


# --- places that cannot be written


@pytest.mark.parametrize("command", ["sample digits {}", "check {photos} --out {}", "train {photos} --out {} {flags}"])
def test_a_place_that_cannot_be_written_is_named(refused, photos, tmp_path, command):
    (tmp_path / "file").write_text("in the way")
    flags = shlex.join(FLAGS)
    text = refused(
        *shlex.split(command.format(tmp_path / "file" / "out", photos=shlex.quote(str(photos)), flags=flags))
    )
    assert "must be a place that can be read and written; got 'Not a directory'" in text
    assert str(tmp_path / "file") in text


def test_a_full_disk_says_what_to_do():
    from headstart.cli.failures import word_failure

    for error in (OSError(28, "No space left on device", "x"), RuntimeError("I/O error: No space left on device")):
        assert "the disk must be large enough for what is written; got 'No space left on device'" in word_failure(error)
        assert "--store-dir" in word_failure(error)


def test_too_little_memory_and_our_own_mistakes_say_what_to_do():
    from headstart.cli.failures import word_failure

    assert word_failure(FileNotFoundError(2, "No such file", "map.csv")).startswith(
        "map.csv must be a place that exists"
    )
    assert "memory must be large enough; got 'out of memory'. Try a smaller" in word_failure(MemoryError())
    assert "headstart itself failed: KeyError: 'x'" in word_failure(KeyError("x"))
    assert "--debug" in word_failure(KeyError("x"))


# --- runs


def test_a_folder_in_use_says_how_to_go_on_or_to_name_another(refused, finished_run, digits):
    text = refused("train", digits, "--out", finished_run.path, *FLAGS)
    assert f"--out must be a new or empty folder; got '{finished_run.path}'. Name another one." in text


def test_resuming_needs_a_run_and_takes_nothing_else(refused, headstart, finished_run, tmp_path):
    assert "RUN must be a run folder; got " in refused("train", "--resume", tmp_path)
    text = refused("train", "photos", "--resume", finished_run.path, "--batch-size", "4")
    assert "leave out DATA, --batch-size." in text
    code, text = headstart("train", "--resume", finished_run.path)
    assert (code, text) == (0, f"This run is finished: {finished_run.path / 'report.html'}\n")


def test_a_run_that_its_recipe_does_not_repeat_is_said(headstart, digits, tmp_path):
    run = RunFolder.create(tmp_path / "run", Recipe(data=str(digits), epochs=3))
    (run.path / "checkpoints").mkdir()
    run.extended(5)
    code, text = headstart("train", "--recipe", run.path / "recipe.toml", "--out", run.path)
    assert code == 2  # not a new folder: nothing is trained here
    assert f"Careful: The recipe does not repeat {run.path}" in text


def test_what_a_run_writes_into_its_recipe_is_no_flag(refused, digits, tmp_path):
    text = refused("train", digits, "--out", tmp_path / "run", "--epochs-before", "3")
    assert "--epochs-before must be a flag of " in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--recipe must be a recipe file, or the name of a recipe; got "),
        ("lr = = 3", "--recipe must be a TOML file; got "),
        ('lr = "x"', "recipe.lr must be a number; got 'x'"),
        ("epoch = 3", "recipe.epoch must be a known setting; got 3. Did you mean 'epochs'?"),
    ],
)
def test_a_bad_recipe_is_refused_before_any_work(refused, digits, tmp_path, content, message):
    if content:
        (tmp_path / "r.toml").write_text(content)
    assert message in refused("train", digits, "--recipe", tmp_path / "r.toml", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_backbone_and_missing_weights_name_the_ways_out(refused, digits, tmp_path, monkeypatch):
    assert "got 'resnet99'" in refused("train", digits, "--out", tmp_path / "a", "--backbone", "resnet99")
    text = refused("train", digits, "--out", tmp_path / "b", "--weights", tmp_path / "none.pth")
    assert f"got '{tmp_path / 'none.pth'}'" in text
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in refused("train", digits, "--out", tmp_path / "c")


@pytest.mark.parametrize(("name", "message"), [("none", "No such file."), ("README.md", "a Parquet file")])
def test_a_split_file_that_is_none_is_refused_before_the_photos_are_read(refused, digits, tmp_path, name, message):
    text = refused("train", digits, "--out", tmp_path / "run", *FLAGS, "--split", README.with_name(name))
    assert message in text
    assert f"{README.with_name(name)}" in text
    assert not (tmp_path / "run" / "table.parquet").exists()


def test_ctrl_c_ends_with_130_and_the_way_back(headstart, monkeypatch, tmp_path):
    def stopped(_, *, epochs):
        raise KeyboardInterrupt("Nothing is lost. Go on with: headstart train --resume here")

    monkeypatch.setattr("headstart.pipeline.resume", stopped)
    code, text = headstart("train", "--resume", tmp_path)
    assert code == 130
    assert "Stopped. Nothing is lost. Go on with: headstart train --resume here" in text


# --- sample


def test_faces_are_written_and_the_broken_label_files_named(headstart, tmp_path):
    code, text = headstart("sample", "faces", tmp_path / "얼굴", "--count", 3, "--seed", 8, "--broken")
    assert code == 0
    assert text.count("3 pictures in") == 1
    named = re.findall(r"broken on purpose: (\S+\.json) \(", text)
    assert sorted(named) == sorted(p.relative_to(tmp_path / "얼굴").as_posix() for p in tmp_path.glob("*/labels/*/*"))


# --- predict and evaluate


def test_a_broken_photo_is_an_error_row_and_exit_code_1(headstart, finished_run, digits, tmp_path):
    (tmp_path / "broken.jpg").write_text("no photo")
    good = next((digits / "3").iterdir())
    code, text = headstart("predict", finished_run.path, good, tmp_path / "broken.jpg", "--out", tmp_path / "out.csv")
    assert code == 1
    assert "1 photos labelled, 1 could not be read" in text
    rows = pl.read_csv(tmp_path / "out.csv", infer_schema_length=0)
    assert rows["label"].is_null().to_list() == [False, True]
    assert rows["error"][1].startswith("not an image")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("{run} {photo} --out {out} --top-k 99", "top_k must be from 1 to 10, the number of classes; got 99"),
        ("{run} {photo} --out {out} --device gpu", "must be one of auto, cpu"),
        ("{run} nope*.jpg --out {out}", "a pattern that matches files; got 'nope*.jpg'"),
        ("{run} {photo} --out {folder}", "--out must be a file to write; got "),
        ("{folder} {photo} --out {out}", "must be a run folder or a bundle; got "),
        ("{run} {photo} --out {out} --label-map {photo}", "must be"),
    ],
)
def test_a_prediction_that_cannot_be_made_says_why(refused, finished_run, digits, tmp_path, flags, message):
    photo = next((digits / "3").iterdir())
    words = {"run": finished_run.path, "photo": photo, "out": tmp_path / "out.csv", "folder": tmp_path}
    assert message in refused("predict", *flags.format(**words).split())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_labels_are_shown_in_korean(headstart, finished_run, digits, tmp_path, encoding):
    lines = ["label,text", *(f"{digit},숫자 {digit}" for digit in range(10))]
    (tmp_path / "map.csv").write_text("\n".join(lines), encoding=encoding)
    out = tmp_path / "out.csv"
    code, _ = headstart("predict", finished_run.path, digits / "3", "--out", out, "--label-map", tmp_path / "map.csv")
    assert code == 0
    rows = pl.read_csv(out, infer_schema_length=0)
    assert (rows["display_name"] == "숫자 " + rows["label"]).all()


def test_photos_of_other_classes_are_not_scored(refused, finished_run, photos):
    text = refused("evaluate", finished_run.path, photos)
    assert "labelled with the model's classes (0, 1, 2," in text
    assert "plain" in text


def test_photos_that_were_trained_on_are_said(headstart, finished_run, digits):
    code, text = headstart("evaluate", finished_run.path, digits)
    assert code == 0
    assert re.search(r"Careful: \d+ photos were trained on or validated with, of the 300 that are scored", text)


# --- the README


def _commands(heading):
    """Give the commands of the README's first block under a heading, without their remarks."""
    block = README.read_text(encoding="utf-8").split(heading)[1].split("```")[1]
    return [shlex.split(line, comments=True)[1:] for line in block.strip().splitlines()]


def test_the_readme_says_what_can_be_run(headstart, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "other_photos"):
        shutil.copytree(digits, name)
    Path("new").mkdir()
    shutil.copy(next(Path("photos/3").iterdir()), "new/photo.jpg")
    commands = _commands("## Quickstart")
    assert [command[0] for command in commands] == ["check", "train", "predict", "evaluate", *["train"] * 3]
    for command in commands:
        is_new = command[0] == "train" and command[1].endswith("/")
        code, text = headstart(*command, *(FLAGS if is_new else []))
        assert code == 0, text
    assert Path("out.csv").exists()
    assert Path("runs/again/report.html").exists()


@pytest.mark.slow
def test_the_readme_says_what_can_be_done_with_keypoints(headstart, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clip").mkdir()
    commands = _commands("### Keypoints")
    assert [command[0] for command in commands] == ["sample", "check", "train", "predict", "train", "train", "convert"]
    small = {
        "sample": ["--count", "72"],
        "train": ["--backbone", "test_resnet", "--weights", "none", "--image-size", "48"],
    }
    for command in commands:
        further = small.get(command[0], []) if "--resume" not in command else []
        further = [*further, "--epochs", "1"] if command[0] == "train" and further else further
        code, text = headstart(*[word if word != "20" else "2" for word in command], *further)
        assert code == 0, text
        if command[0] == "sample":
            shutil.copy(next(Path("drivers/images").rglob("*.jpg")), "clip/photo.jpg")
            Path("boxes.csv").write_text("path,left,top,right,bottom\nclip/photo.jpg,8,8,90,90\n")
    assert {"points.csv", "annotations.csv", "drawn", "account"} <= {path.name for path in Path().iterdir()}
    assert pl.read_csv("points.csv")["error"].null_count() == 1


@pytest.mark.slow
def test_the_readme_says_what_can_be_done_with_folds(headstart, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits, "photos")
    for picture in sorted(Path("photos").rglob("*.png")):
        target = Path("other_photos") / picture.relative_to("photos")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(picture).rotate(7).save(target)  # no photo that a model has learned from
    assert headstart("train", "photos", "--out", "runs/first", *FLAGS)[0] == 0
    commands = _commands("### Folds and ensembles")
    assert [command[0] for command in commands] == [
        *["train"] * 3,
        "predict",
        *["train"] * 2,
        *["ensemble"] * 2,
        "evaluate",
    ]
    for command in commands:
        is_new = command[0] == "train" and command[1] == "photos/"
        pairs = zip(FLAGS[::2], FLAGS[1::2], strict=True)
        more = [part for pair in pairs if is_new and pair[0] not in command for part in pair]
        code, text = headstart(*[part.replace("new/*.jpg", "photos/3") for part in command], *more)
        assert code == 0, text
    assert Path("submission.csv").exists()
