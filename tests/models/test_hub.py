import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from headstart.errors import WeightsError
from headstart.models.backbones import create_backbone
from headstart.models.hub import find_weights, why_unreachable

NAME = "test_resnet"
REPOSITORY = "timm/test_resnet.r160_in1k"


@pytest.fixture(autouse=True)
def no_weights_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point every place where weights may lie to empty folders."""
    monkeypatch.delenv("HEADSTART_WEIGHTS", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    save_file(timm.create_model(NAME).state_dict(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def make_hub(content: bytes) -> ThreadingHTTPServer:
    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            is_there = self.path == f"/{REPOSITORY}/resolve/main/model.safetensors"
            self.send_response(200 if is_there else 404)
            self.send_header("Content-Length", str(len(content) if is_there else 0))
            if not is_there:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("ETag", '"0123456789"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if with_body and is_there:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Hub)


@pytest.fixture
def hub(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = make_hub(weights.read_bytes())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def test_weights_come_from_the_hub_where_it_answers_and_then_from_its_cache(hub: str, monkeypatch: pytest.MonkeyPatch):
    fetched = create_backbone(NAME)
    assert fetched.weights.source == f"{REPOSITORY} from the hub"
    assert fetched.classifier is not None
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    cached = create_backbone(NAME)
    assert cached.weights.source == f"{REPOSITORY} in the hub's cache"
    assert cached.weights.sha256 == fetched.weights.sha256


def test_a_file_that_the_hub_does_not_hold_is_an_error_with_ways_out(hub: str):
    with pytest.raises(WeightsError, match=r"(?s)weights must be 'auto' where .* Entry Not Found.*--weights none"):
        find_weights("x", "auto", published={"hf_hub_id": "timm/nothing"})


def test_the_folder_comes_before_everything_else(
    hub: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "test_resnet-own.safetensors").write_bytes(weights.read_bytes())
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(folder))
    assert create_backbone(NAME).weights.source == "test_resnet-own.safetensors in HEADSTART_WEIGHTS"


def test_the_folder_gives_safetensors_first_and_says_what_it_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("net_100-a.pth", "net_100-z.safetensors", "net_100b.safetensors", "net_100_x.pth", "net_100.txt"):
        (tmp_path / name).touch()
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path))
    file = find_weights("net_100", "auto", published={})
    assert file.path.name == "net_100-z.safetensors"
    assert file.origin == "net_100-z.safetensors in HEADSTART_WEIGHTS (not used: net_100-a.pth)"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match=r"HEADSTART_WEIGHTS must be a folder .* got '.*nowhere'"):
        create_backbone(NAME)


def test_offline_is_said_at_once_with_every_way_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        WeightsError, match=r"HF_HUB_OFFLINE is set\. Pass --weights FILE .* HEADSTART_WEIGHTS .* --weights none"
    ):
        create_backbone(NAME)


def test_a_hub_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:9: .*refused.* --weights none"):
        create_backbone(NAME)


def test_weights_with_an_address_of_their_own_are_reported_alike():
    published = {"url": "http://127.0.0.1:9/weights/gcvit-0123abcd.pth"}
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:9: .*refused"):
        find_weights("gcvit_tiny", "auto", published=published)


def test_weights_with_an_address_are_found_in_torchs_cache(tmp_path: Path):
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "gcvit-0123abcd.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    file = find_weights("gcvit_tiny", "auto", published={"url": "http://127.0.0.1:9/weights/gcvit-0123abcd.pth"})
    assert file.path == cached


def test_a_network_without_published_weights_is_refused():
    with pytest.raises(WeightsError, match="none are published for this network; got 'auto'"):
        find_weights("resnet_own", "auto", published={})


def test_a_host_that_never_answers_is_given_up_at_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        reason = why_unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.5)
        assert time.monotonic() - start < 5
    assert reason is not None
    assert "no answer within 0.5 s" in reason or "timed out" in reason


def test_a_host_that_answers_is_reachable_whatever_it_says(hub: str):
    assert why_unreachable(f"{hub}/nothing/here") is None
