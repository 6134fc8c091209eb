"""Checkpoint folders with faults: a file that the loader takes, or one line that says what is wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("lazygguf.tools.convert.command", reason="lazygguf is not installed with its tools")

from convert.conftest import parse_and_run
from convert.mutated_folder import copy, mutate, write_folders

from lazygguf.errors import LazyError

N_FOLDERS = 150  # of the many thousand that were tried


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_folders(tmp_path_factory.mktemp("whole"))


def test_whole_folders_are_converted(folders: list[Path], tmp_path: Path) -> None:
    for folder in folders:
        assert parse_and_run("convert", folder, "--outfile", tmp_path / f"{folder.name}.gguf") == 0


def test_a_fault_in_a_folder_is_one_line_that_names_a_place(folders: list[Path], tmp_path: Path) -> None:
    n_refused = 0
    for seed in range(N_FOLDERS):
        rng = random.Random(seed)
        folder = copy(rng.choice(folders), tmp_path / "mutated")
        done = mutate(folder, rng)
        out = tmp_path / "out.gguf"
        out.unlink(missing_ok=True)
        try:
            parse_and_run("convert", folder, "--outfile", out)
        except LazyError as error:
            n_refused += 1
            said = str(error)
            assert "\n" not in said and len(said) < 1200, (seed, done, said)
            assert str(folder) in said or "blk." in said or "token_embd" in said or "output" in said, (seed, done, said)
        except OSError as error:
            n_refused += 1
            assert error.filename is not None, (seed, done, error)
        # any other exception fails the test: it would be a traceback, or a line without a place
        assert out.exists() or not list(tmp_path.glob(".*")), (seed, done)
    assert N_FOLDERS // 4 < n_refused < N_FOLDERS
