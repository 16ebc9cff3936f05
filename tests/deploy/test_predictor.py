import io
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import headstart
from headstart.data.augmentation import evaluation_maps
from headstart.data.decoding import CoverRule, decode
from headstart.data.rendering import render
from headstart.deploy.predictor import WORTH_COMPILING, ImageInput, Predictor, gather_inputs, load
from headstart.errors import BundleError, HeadstartError, RecipeError
from headstart.models.bundle import save_bundle
from headstart.models.network import Network, new_network, pretrained_classifier
from headstart.recipe import Recipe

NAMES = ("고양이", "dog", "owl")


def make_network(**settings) -> Network:
    return new_network(Recipe(backbone="test_efficientnet", weights="none", image_size=(64, 64), **settings), 3).eval()


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(make_network(), NAMES, device="cpu")


def photo(seed: int, *, height: int = 120, width: int = 90) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    photo(seed).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"사진 {number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        photo(number).save(path, quality=95)
    return paths


def test_a_photo_goes_through_the_pixels_and_geometry_of_training(predictor: Predictor, photos: list[Path]):
    contract = predictor.network.contract
    stored = decode(photos[0].read_bytes(), cover=CoverRule(contract.image_size, contract.fit), max_pixels=10**8).pixels
    maps = evaluation_maps([stored.shape[:2]], image_size=(64, 64), fit="crop", crop_fraction=contract.crop_fraction)
    pixels = torch.from_numpy(render(stored, maps, image_size=(64, 64)))[None]
    with torch.inference_mode():
        expected = torch.softmax(predictor.network(pixels).double(), 1)[0]
    given = dict(predictor.predict(photos[0], top_k=3)[0].top)
    assert [given[name] for name in NAMES] == pytest.approx(expected.tolist(), abs=1e-6)


def test_paths_bytes_pillow_images_and_arrays_get_the_same_answer(predictor: Predictor, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png(1))
    image = Image.open(tmp_path / "a.png")
    given = [str(tmp_path / "a.png"), tmp_path / "a.png", png(1), image, np.asarray(image)]
    answers = {prediction.probability for prediction in predictor.predict(given)}
    assert len(answers) == 1
    assert [prediction.path for prediction in predictor.predict(given)] == [str(tmp_path / "a.png")] * 2 + [None] * 3


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_answers_come_in_order_whatever_the_batch_size(predictor: Predictor, photos: list[Path], batch_size: int):
    alone = [predictor.predict(path)[0] for path in photos]
    together = predictor.predict(photos, batch_size=batch_size)
    assert [prediction.path for prediction in together] == [str(path) for path in photos]
    assert [p.probability for p in together] == pytest.approx([p.probability for p in alone], abs=1e-5)


def test_a_photo_that_cannot_be_read_gets_an_error_and_never_a_label(
    predictor: Predictor, photos: list[Path], tmp_path: Path
):
    photos[1].write_bytes(photos[1].read_bytes()[:300])
    (tmp_path / "text.jpg").write_text("not a photo")
    (tmp_path / "empty.jpg").touch()
    given = [
        photos[0],
        photos[1],
        tmp_path / "text.jpg",
        tmp_path / "empty.jpg",
        tmp_path / "nowhere.jpg",
        tmp_path,
        photos[2],
    ]
    results = predictor.predict(given, batch_size=3)
    assert [result.error is None for result in results] == [True, False, False, False, False, False, True]
    assert [result.error.split(":")[0] for result in results[1:-1] if result.error] == [
        "truncated",
        "not an image",
        "empty",
        "missing",
        "unreadable",
    ]
    assert all(result.label is None and result.probability is None and result.top == () for result in results[1:-1])
    assert results[-1].probability == pytest.approx(predictor.predict(photos[2])[0].probability, abs=1e-5)


def test_a_batch_of_broken_photos_alone_is_no_error(predictor: Predictor):
    assert [result.error for result in predictor.predict([b"", b""])] == ["empty: the file has no bytes"] * 2


def test_no_photos_give_no_predictions(predictor: Predictor):
    assert predictor.predict([]) == []


def test_top_k_gives_the_likeliest_classes_in_order(predictor: Predictor):
    result = predictor.predict(png(3), top_k=3)[0]
    probabilities = [probability for _, probability in result.top]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)
    assert result.top[0] == (result.label, result.probability)
    assert {name for name, _ in result.top} == set(NAMES)


def test_temperature_makes_the_model_less_sure_of_the_same_label():
    network = make_network()
    sharp, soft = (Predictor(network, NAMES, temperature=value, device="cpu").predict(png(3))[0] for value in (0.1, 10))
    assert soft.label == sharp.label
    assert soft.probability is not None
    assert sharp.probability is not None
    assert soft.probability < sharp.probability


@pytest.mark.parametrize("top_k", [0, 4])
def test_a_top_k_out_of_bounds_is_refused(predictor: Predictor, top_k: int):
    with pytest.raises(RecipeError, match=f"top_k must be from 1 to 3, the number of classes; got {top_k}"):
        predictor.predict(png(1), top_k=top_k)


def test_a_batch_size_of_nothing_is_refused(predictor: Predictor):
    with pytest.raises(RecipeError, match="batch_size must be at least 1; got 0"):
        predictor.predict(png(1), batch_size=0)


@pytest.mark.parametrize(
    ("image", "message"),
    [(3, "image must be a path, .* got 'int'"), (np.zeros((4, 4, 3)), "uint8 or uint16 .* got 'float64")],
)
def test_what_is_no_photo_at_all_is_refused(predictor: Predictor, image: object, message: str):
    with pytest.raises(HeadstartError, match=message):
        predictor.predict([image])  # pyright: ignore[reportArgumentType]


def test_names_that_do_not_fit_the_logits_are_refused():
    with pytest.raises(RecipeError, match=r"class_names must be 3 names, one a logit; got \['a'\]"):
        Predictor(make_network(), ["a"])


@pytest.mark.parametrize("device", ["tpu", "cuda" if not torch.cuda.is_available() else "mps"])
def test_a_device_that_is_not_there_is_refused(device: str):
    with pytest.raises(RecipeError, match=f"device must be one of auto, cpu.* got '{device}'"):
        Predictor(make_network(), NAMES, device=device)


def test_many_photos_run_compiled_and_get_the_answers_of_few():
    network = make_network()
    images: list[ImageInput] = [np.asarray(photo(seed, height=70, width=80)) for seed in range(WORTH_COMPILING + 7)]
    images[3] = b""
    many = Predictor(network, NAMES, device="cpu")
    results = many.predict(images)
    few = Predictor(network, NAMES, device="cpu").predict(images[-20:])
    assert many.notes == ()
    assert results[3].error is not None
    assert [r.probability for r in results[-20:]] == pytest.approx([r.probability for r in few], abs=1e-4)
    assert [r.label for r in results[-20:]] == [r.label for r in few]


def test_a_saved_model_answers_as_before_it_was_saved(predictor: Predictor, tmp_path: Path):
    network = make_network(fit="letterbox")
    save_bundle(tmp_path / "run" / "bundle", network, class_names=NAMES, temperature=2.0)
    before = Predictor(network, NAMES, temperature=2.0, device="cpu").predict(png(2), top_k=3)
    assert load(tmp_path / "run", device="cpu").predict(png(2), top_k=3) == before
    assert headstart.load(str(tmp_path / "run"), device="cpu").predict(png(2), top_k=3) == before


def test_loading_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(BundleError, match="bundle must be a run folder or a bundle"):
        load(tmp_path)


@pytest.mark.real_data
@pytest.mark.skipif("HEADSTART_DATA" not in os.environ, reason="HEADSTART_DATA is not set")
def test_the_unchanged_imagenet_head_names_what_is_on_the_sample_photos(monkeypatch: pytest.MonkeyPatch):
    data = Path(os.environ["HEADSTART_DATA"])
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(data / "weights"))
    names = (data / "sample_photos" / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    predictor = Predictor(pretrained_classifier("mobilenetv2_100", names), names)
    rows = list(pl.read_csv(data / "sample_photos" / "expected_top1.csv").iter_rows(named=True))
    paths = gather_inputs([str(data / "sample_photos" / row["file"]) for row in rows])
    results = predictor.predict(paths)
    assert [result.label for result in results] == [row["mobilenet_v2_label"] for row in rows]
    expected = [row["mobilenet_v2_prob"] for row in rows]
    assert [result.probability for result in results] == pytest.approx(expected, abs=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_gives_the_answers_of_the_cpu(predictor: Predictor):
    images = [png(seed) for seed in range(40)]
    on_gpu = Predictor(make_network(), NAMES, device="cuda").predict(images)
    expected = [result.probability for result in predictor.predict(images)]
    assert [result.probability for result in on_gpu] == pytest.approx(expected, abs=1e-4)
