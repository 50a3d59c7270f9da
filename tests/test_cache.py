"""What is kept between processes is read as it was written or not at all; nobody else writes it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swatsim import cache

VERSION = "0123456789abcdef"
STRANGER = 54321

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SWATSIM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    assert cache.read(path) is None
    for payload in (b"", b"code", bytes(1000)):
        cache.write(path, payload)
        assert cache.read(path) == payload
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_one_changed_bit_or_a_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    cache.write(path, b"some machine code")
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert cache.read(path) is None
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert cache.read(path) is None
    path.write_bytes(whole + b"\0")
    assert cache.read(path) is None
    path.write_bytes(whole)
    assert cache.read(path) == b"some machine code"


def test_no_entry_passes_for_another(tmp_path: Path) -> None:
    cache.write(tmp_path / "one", b"code")
    (tmp_path / "one").rename(tmp_path / "two")
    assert cache.read(tmp_path / "two") is None


def test_writers_of_one_entry_leave_it_whole(tmp_path: Path) -> None:
    path, payloads = tmp_path / "entry", [bytes([i]) * 10_000 for i in range(4)]
    cache.write(path, payloads[0])

    def work(payload: bytes) -> bool:
        for _ in range(20):
            cache.write(path, payload)
            if cache.read(path) not in payloads:
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, payloads))
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "entry"
    cache.write(path, b"old")

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        cache.write(path, b"new")
    assert cache.read(path) == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_was_tidied_up_meanwhile_is_made_again(tmp_path: Path) -> None:
    cache.write(tmp_path / "gone" / "entry", b"code")
    assert mode(tmp_path / "gone") == 0o700


def test_folders_are_made_for_the_user_alone(root: Path) -> None:
    before = os.umask(0)
    try:
        folder = cache.folder_of(VERSION)
    finally:
        os.umask(before)
    assert folder == root / "kernels" / VERSION
    assert {mode(part) for part in (folder, folder.parent, root)} == {0o700}
    assert cache.folder_of(VERSION) == folder


@pytest.mark.parametrize("part", ["", "kernels", f"kernels/{VERSION}"])
@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_may_write_is_not_used(
    root: Path, part: str, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert cache.folder_of(VERSION) is not None
    (root / part).chmod(bits)
    assert cache.folder_of(VERSION) is None
    (line,) = caplog.messages
    assert f"{root / part} must be yours" in line
    assert "chmod go-w" in line


@as_root
@pytest.mark.parametrize("part", ["", "kernels", f"kernels/{VERSION}"])
def test_a_folder_of_another_user_is_not_used(root: Path, part: str) -> None:
    assert cache.folder_of(VERSION) is not None
    os.chown(root / part, STRANGER, -1)
    assert cache.folder_of(VERSION) is None


@as_root
def test_a_file_that_others_wrote_or_may_write_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    cache.write(path, b"code")
    path.chmod(0o660)
    assert cache.read(path) is None
    path.chmod(0o600)
    assert cache.read(path) == b"code"
    os.chown(path, STRANGER, -1)
    assert cache.read(path) is None


@pytest.mark.parametrize(("bits", "is_used"), [(0o777, False), (0o1777, True), (0o755, True)])
def test_nobody_else_may_put_another_folder_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, is_used: bool
) -> None:
    above = tmp_path / "above"
    above.mkdir()
    above.chmod(bits)
    monkeypatch.setenv("SWATSIM_CACHE_DIR", str(above / "below" / "cache"))
    assert (cache.folder_of(VERSION) is not None) is is_used


@as_root
def test_nor_whose_folder_it_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    above = tmp_path / "above"
    (above / "below").mkdir(parents=True)
    monkeypatch.setenv("SWATSIM_CACHE_DIR", str(above / "below" / "cache"))
    assert cache.folder_of(VERSION) is not None
    os.chown(above, -1, STRANGER)
    above.chmod(0o775)  # a group with others in it
    assert cache.folder_of(VERSION) is None
    os.chown(above, -1, os.getegid())  # a group of the user's own
    assert cache.folder_of(VERSION) is not None
    os.chown(above, STRANGER, -1)
    assert cache.folder_of(VERSION) is None
    (tmp_path / "link").symlink_to(above / "below")
    monkeypatch.setenv("SWATSIM_CACHE_DIR", str(tmp_path / "link" / "cache"))
    assert cache.folder_of(VERSION) is None


def test_a_folder_that_can_not_be_made_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "cache", Path("/proc/none/cache")):
        monkeypatch.setenv("SWATSIM_CACHE_DIR", str(place))
        assert cache.folder_of(VERSION) is None
    assert len(caplog.messages) == 3
    monkeypatch.setenv("SWATSIM_CACHE_DIR", "")
    assert cache.folder_of(VERSION) is None
    assert len(caplog.messages) == 3


def test_a_place_is_relative_to_where_the_process_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for place, root in {"cache": tmp_path / "cache", "~/c": tmp_path / "home" / "c"}.items():
        monkeypatch.setenv("SWATSIM_CACHE_DIR", place)
        assert cache.folder_of(VERSION) == root / "kernels" / VERSION


@pytest.mark.parametrize("is_raised", [True, False])
def test_without_a_home_there_is_no_cache(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_raised: bool,
) -> None:
    def homeless(name: str) -> Path:
        if is_raised:  # as platformdirs of today does
            raise RuntimeError("no home")
        return Path("~/.cache") / name

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWATSIM_CACHE_DIR", raising=False)
    monkeypatch.setattr(cache, "user_cache_path", homeless)
    assert cache.folder_of(VERSION) is None
    assert "no home folder is known: set SWATSIM_CACHE_DIR" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_versions_that_nobody_uses_any_more_are_removed(root: Path) -> None:
    kernels = root / "kernels"
    ages = {f"{days:016x}": days for days in range(40)}
    for name, days in ages.items():
        (kernels / name / "inside").mkdir(parents=True)
        os.utime(kernels / name, (0, time.time() - days * 86_400 - 60))
    (kernels / "notes").mkdir()
    os.utime(kernels / "notes", (0, 0))
    for name in list(ages)[::2]:  # as many again began today
        (kernels / f"{name}f").mkdir()
    root.chmod(0o755)
    kernels.chmod(0o755)
    assert cache.folder_of(VERSION) is not None
    left = {path.name for path in kernels.iterdir()} - {VERSION, "notes"}
    assert left == {"0" * 16} | {f"{name}f" for name in list(ages)[::2]}
    assert (kernels / "notes").is_dir()


def test_versions_of_late_are_kept(root: Path) -> None:
    kernels = root / "kernels"
    for days in (2, 10, 29, 31):
        (kernels / f"{days:016x}").mkdir(parents=True)
        os.utime(kernels / f"{days:016x}", (0, time.time() - days * 86_400))
    root.chmod(0o755)
    kernels.chmod(0o755)
    assert cache.folder_of(VERSION) is not None
    assert {path.name for path in kernels.iterdir()} == {
        VERSION,
        *(f"{days:016x}" for days in (2, 10, 29)),
    }
