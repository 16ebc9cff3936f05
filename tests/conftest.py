"""Pictures for tests: a few hundred real digits, and one small run that many tests look at."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from headstart.samples import write_digits
from small_run import SMALL_RUN


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Keep the tests' pixel stores out of the user's cache, and the user's weights out of the tests."""
    os.environ["HEADSTART_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("HEADSTART_WEIGHTS", None)


@pytest.fixture(autouse=True, scope="session")
def _interrupts_arrive():
    """Let Ctrl-C reach the processes that tests start: what a shell runs in the background ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """A folder of 300 digits in ten class folders."""
    whole, folder = tmp_path_factory.mktemp("whole") / "digits", tmp_path_factory.mktemp("photos") / "digits"
    write_digits(whole)
    for class_folder in sorted(whole.iterdir()):
        (folder / class_folder.name).mkdir(parents=True)
        for picture in sorted(class_folder.iterdir())[:30]:
            shutil.copy(picture, folder / class_folder.name)
    return folder


@pytest.fixture(scope="session")
def finished_run(digits, tmp_path_factory):
    """A small finished run on the digits."""
    import headstart

    return headstart.train(digits, out=tmp_path_factory.mktemp("runs") / "first", **SMALL_RUN)


@pytest.fixture
def parts(finished_run):
    """The finished run's network and store, and the records of all samples."""
    from headstart.data.table import SampleTable
    from headstart.models.bundle import load_bundle
    from headstart.preparation import reopen

    network = load_bundle(finished_run.path).network
    table = SampleTable.load(finished_run.path / "table.parquet")
    found = reopen(table, finished_run.recipe, image_size=network.contract.image_size)
    return network, found.store, found.table.kept["record"].to_numpy()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photos and weights; tests that need it are skipped where it is not set."""
    folder = os.environ.get("HEADSTART_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("HEADSTART_DATA does not name a folder of real photos")
    return Path(folder)
