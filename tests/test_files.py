"""Sets of files: swapped as sets, by whoever has the folder, and what a kill leaves is removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swatsim import files
from swatsim.errors import ResultsError
from swatsim.files import leftovers, locked, publish, publish_all, temporary
from swatsim.outputs import write_files

#: Saves one set twenty times, as a process whose number is that of the others: of a container.
SAVER = """
import os, sys
from pathlib import Path
from swatsim.files import publish_all
os.getpid = lambda: 1
folder, word = Path(sys.argv[1]), sys.argv[2].encode()
for _ in range(20):
    publish_all({folder / name: word * 1000 for name in "abc"})
"""


def words(folder: Path) -> set[bytes]:
    return {(folder / name).read_bytes()[:1] for name in "abc"}


def test_savers_of_one_folder_never_mix(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVER, str(tmp_path)]
    running = [subprocess.Popen([*command, word], stderr=subprocess.PIPE) for word in "xyz"]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert len(words(tmp_path)) == 1

    def save(word: str) -> None:
        publish_all({tmp_path / name: word.encode() * 1000 for name in "abc"})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save, "pqrstuvw" * 5))
    assert len(words(tmp_path)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_single_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: publish(tmp_path / "a", bytes([i]) * 1000), range(80)))
    assert len(set((tmp_path / "a").read_bytes())) == 1
    assert len({temporary(tmp_path / "a") for _ in range(100)}) == 100


def test_what_a_killed_saver_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    gone = [temporary(tmp_path / "a"), tmp_path / ".a.123.tmp"]
    stay = [tmp_path / ".a.mine.tmp", tmp_path / "a.1.tmp", temporary(tmp_path / "other")]
    for path in (*gone, *stay):
        path.write_bytes(b"half")
    (tmp_path / files.LOCK).write_bytes(b"")  # not locked: it means nothing
    assert set(leftovers(tmp_path, "a")) == set(gone)
    publish_all({tmp_path / "a": b"1", tmp_path / "b": b"2"}, gone=[tmp_path / "none"])
    assert set(tmp_path.iterdir()) == {*stay, tmp_path / "a", tmp_path / "b"}


def test_a_folder_that_another_keeps_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_WAIT_SECONDS", 0.05)
    (tmp_path / "a").write_bytes(b"old")
    with locked(tmp_path, seconds=0) as held:
        assert held
        with pytest.raises(ResultsError, match="what was there before is unchanged"):
            write_files(tmp_path, {"a": b"1"})
    assert (tmp_path / "a").read_bytes() == b"old"


def test_unchanged_is_said_only_where_it_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(b"old")
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if target.name == "b":
            raise OSError(5, "Input/output error", str(target))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(ResultsError, match="a were replaced, the others not") as caught:
        write_files(tmp_path, dict.fromkeys("abc", b"new"))
    assert "is unchanged" not in str(caught.value)
    assert [(tmp_path / name).read_bytes() for name in "abc"] == [b"new", b"old", b"old"]
    with pytest.raises(ResultsError, match="is unchanged"):
        write_files(tmp_path, {"b": b"new"})
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


def test_json_knows_whether_it_was_changed() -> None:
    from swatsim.sealed import seal, unseal

    content = {"b": [1, 2.5, None], "a": {"x": "\u00e9"}}
    for indent in (None, 1):
        text = seal(content, indent)
        assert unseal(text) == content
        assert set(json.loads(text)) == {"a", "b", "digest"}
        with pytest.raises(ResultsError, match="changed after it was written"):
            unseal(text.replace(b"2.5", b"2.6"))
    for text in (b"", b"[]", b"3", b"null", b"{}", b'{"digest": 1}', b"[" * 100_000, b"\xff{}"):
        with pytest.raises(ResultsError):
            unseal(text)
