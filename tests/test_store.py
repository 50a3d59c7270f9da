"""What is kept is found as it was put, or not at all; it makes room, and costs no run."""

from __future__ import annotations

import errno
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swatsim import cache
from swatsim.errors import ConfigError
from swatsim.store import Store, open_store, opened, store
from swatsim.store.folder import LEFT, MARKED, PARTS, Kept, LocalFolder, name_of

KEYS = tuple(f"{i:032x}" for i in range(4096))
#: A key whose writing has its subfolder looked at for room.
LOOKED_AT = "ab00" + "0" * 28


class Memory:
    """A folder that is none."""

    place = "memory"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, content: bytes) -> None:
        self.files[name] = content

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.files.pop(name, None)

    def entries(self, part: str) -> Iterator[Kept]:
        for name, content in list(self.files.items()):
            if name.startswith(f"{part}/"):
                yield Kept(name.replace("/", ""), len(content), 0.0)

    def tidy(self, part: str) -> None:
        pass


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def opened_at(root: Path) -> Store:
    """Return a store that remembers nothing of what was put before."""
    return Store(LocalFolder(root))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_was_put_is_found(root: Path) -> None:
    one = opened_at(root)
    assert one.get(KEYS[1]) is None
    for payload in (b"", b"counts", bytes(1000)):
        one.put(KEYS[1], payload)
        assert one.get(KEYS[1]) == opened_at(root).get(KEYS[1]) == payload
    assert (one.found, one.missed) == (3, 1)
    assert [it for it in root.rglob("*") if it.is_file()] == [root / name_of(KEYS[1])]
    assert one.size().entries == 1
    assert one.size().bytes >= 1000


def test_one_changed_bit_or_a_cut_is_noticed(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened_at(root).put(KEYS[1], b"some counts")
    path = root / name_of(KEYS[1])
    whole = path.read_bytes()
    caplog.set_level(logging.INFO)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert opened_at(root).get(KEYS[1]) is None
    assert "damaged" in caplog.text
    assert {record.levelname for record in caplog.records} == {"INFO"}
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert opened_at(root).get(KEYS[1]) is None
    path.write_bytes(whole + b"\0")
    assert opened_at(root).get(KEYS[1]) is None
    opened_at(root).put(KEYS[1], b"some counts")
    assert path.read_bytes() == whole


def test_no_entry_passes_for_another(root: Path) -> None:
    opened_at(root).put(KEYS[1], b"counts")
    (root / name_of(KEYS[1])).rename(root / name_of(KEYS[2]))
    assert opened_at(root).get(KEYS[2]) is None


def test_what_is_no_file_of_ours_is_none(root: Path) -> None:
    opened_at(root).put(KEYS[1], b"counts")
    (root / name_of(KEYS[2])).mkdir()
    os.mkfifo(root / name_of(KEYS[3]))
    (root / "0" / "README").write_text("somebody's")
    one = opened_at(root)
    assert (one.get(KEYS[2]), one.get(KEYS[3])) == (None, None)
    assert one.clear().entries == 1
    assert (root / "0" / "README").is_file()


def test_writers_of_one_entry_leave_it_whole(root: Path) -> None:
    payloads = [bytes([i]) * 10_000 for i in range(4)]
    opened_at(root).put(KEYS[1], payloads[0])

    def work(payload: bytes) -> bool:
        for _ in range(20):
            opened_at(root).put(KEYS[1], payload)
            if opened_at(root).get(KEYS[1]) not in payloads:
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, payloads))
    assert [it for it in root.rglob("*") if it.is_file()] == [root / name_of(KEYS[1])]


WRITER = """
import sys
from pathlib import Path
from swatsim.store.folder import LocalFolder
from swatsim.store.store import Store
one = Store(LocalFolder(Path(sys.argv[1])))
print("begun", flush=True)
for i in range(10**9):
    one.put(f"{i % 512:032x}", bytes([i % 256]) * 5000)
"""


def test_what_a_killed_writer_leaves_is_whole(root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while not (root / name_of(KEYS[100])).is_file():
            time.sleep(0.001)
        writer.send_signal(signal.SIGKILL)
    entries = [key for key in KEYS[:512] if (root / name_of(key)).is_file()]
    assert all(opened_at(root).get(key) for key in entries)
    left = (root / name_of(LOOKED_AT)).parent / f".{'0' * 31}.123.0123abcd.tmp"
    left.parent.mkdir()
    for age, goes in ((LEFT // 2, False), (2 * LEFT, True)):
        left.write_bytes(b"half")
        os.utime(left, (0, time.time() - age))
        opened_at(root).put(LOOKED_AT, b"")
        assert left.exists() is not goes


# ---- room


def test_what_was_not_used_longest_makes_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LEAST_LIMIT", 0)
    one, keys = opened_at(root), [f"ab{i:030x}" for i in range(1, 21)]
    for i, key in enumerate(keys):
        one.put(key, bytes(1000))
        path = root / name_of(key)
        os.utime(path, (0, time.time() - 10 * MARKED + i))
    a_file = one.size().bytes // 20
    assert opened_at(root).get(keys[0]) is not None  # which marks it
    one.set_limit(len(PARTS) * 10 * a_file)
    kept = [key for key in keys if opened_at(root).get(key) is not None]
    assert kept == [keys[0], *keys[-8:]]
    assert opened_at(root).limit == len(PARTS) * 10 * a_file


def test_a_store_stays_within_its_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LEAST_LIMIT", 0)
    one, keys = opened_at(root), [f"ab{i:04x}{'0' * 26}" for i in range(400)]
    one.put(keys[0], b"")
    most = 20 * one.size().bytes
    one.set_limit(len(PARTS) * most)
    for key in keys:
        one.put(key, bytes(100))
        if int(key[2:4], 16) % store.LOOKED == 0:
            assert one.size().bytes <= most


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"limit_bytes": "x"}', b'{"limit_bytes": 1}'])
def test_a_limit_that_is_none_is_the_usual_one(root: Path, content: bytes) -> None:
    one = opened_at(root)
    assert one.limit == store.LIMIT
    one.set_limit(store.LEAST_LIMIT)
    assert opened_at(root).limit == store.LEAST_LIMIT
    (root / store.SETTINGS).write_bytes(content)
    assert opened_at(root).limit == store.LIMIT
    with pytest.raises(ConfigError, match=f"at least {store.LEAST_LIMIT}"):
        one.set_limit(store.LEAST_LIMIT - 1)


def test_clearing_leaves_the_limit(root: Path) -> None:
    one = opened_at(root)
    one.set_limit(2 * store.LEAST_LIMIT)
    for key in KEYS[:5]:
        one.put(key, b"counts")
    assert one.clear().entries == 5
    assert (one.size(), one.get(KEYS[0])) == (store.Size(0, 0), None)
    assert opened_at(root).limit == 2 * store.LEAST_LIMIT


# ---- faults of the folder


class Faulty(Memory):
    """A folder that refuses."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, name: str, content: bytes) -> None:
        raise self.error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_folder_that_refuses_is_said_once(number: int, caplog: pytest.LogCaptureFixture) -> None:
    one = Store(Faulty(OSError(number, os.strerror(number))))
    for key in KEYS[:10]:
        one.put(key, b"counts")
        assert one.get(key) == b"counts"  # this process has it
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert os.strerror(number) in record.message
    assert "\n" not in record.message


def test_whatever_a_folder_refuses_is_one_warning(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = opened_at(root)
    for key in KEYS[:4]:
        one.put(key, b"counts")
        file = root / name_of(key)
        file.unlink()
        file.mkdir()  # it is neither read nor replaced
    again = opened_at(root)
    for key in KEYS[:4]:
        assert again.get(key) is None
        again.put(key, b"counts")
    assert [it.levelname for it in caplog.records if it.levelname != "INFO"] == ["WARNING"]


def test_a_place_that_is_none_costs_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    one = opened_at(tmp_path / "file" / "store")
    for key in KEYS[:3]:
        assert one.get(key) is None
        one.put(key, b"counts")
    assert len(caplog.records) == 1


def test_no_room_leaves_nothing_half_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(file: object, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("swatsim.store.folder.write_all", full)
    opened_at(root).put(KEYS[1], b"counts")
    assert len(caplog.records) == 1
    assert [it for it in root.rglob("*") if it.is_file()] == []


def test_a_shared_folder_is_everybodys_who_may_write_there(root: Path) -> None:
    root.mkdir()
    before = os.umask(0o077)
    try:
        opened_at(root).put(KEYS[1], b"counts")
        path = root / name_of(KEYS[1])
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)
        root.chmod(0o2775)
        opened_at(root).put(LOOKED_AT, b"counts")
        path = root / name_of(LOOKED_AT)
        assert (mode(path), mode(path.parent)) == (0o664, 0o2775)
    finally:
        os.umask(before)


# ---- which one


def test_the_usual_one_lies_beside_compiled_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(opened.STORE_VARIABLE)
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    found = open_store()
    assert found is not None
    assert found.place == str(tmp_path / "cache" / "store")
    assert not (tmp_path / "cache").exists()
    found.put(KEYS[1], b"counts")
    assert mode(tmp_path / "cache") == 0o700  # as kernels want it, that run
    monkeypatch.setenv(cache.CACHE_VARIABLE, "")
    assert open_store() is None
    monkeypatch.delenv(cache.CACHE_VARIABLE)
    monkeypatch.setattr(cache, "user_cache_path", lambda name: Path("~"))
    opened._say_once.cache_clear()
    assert (open_store(), open_store()) == (None, None)
    assert len(caplog.records) == 1


def test_a_variable_or_an_argument_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(opened.STORE_VARIABLE, str(tmp_path / "a"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def place(where: opened.Where) -> str | None:
        found = open_store(where)
        return None if found is None else found.place

    assert place(True) == str(tmp_path / "a")
    assert place(tmp_path / "b") == place("b") == str(tmp_path / "b")
    assert place("~/c") == str(tmp_path / "home" / "c")
    assert (place(False), place("")) == (None, None)
    monkeypatch.setenv(opened.STORE_VARIABLE, "")
    assert place(True) is None
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match="is a file: give a folder, or a URL"):
        open_store("file")


# ---- through fsspec


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_a_url_is_a_folder_too(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LEAST_LIMIT", 0)
    url = f"{protocol}://{tmp_path}/store"

    def found() -> Store:
        made = open_store(url)
        assert made is not None
        return made

    assert found().place == url
    assert found().size() == store.Size(0, 0)
    assert found().get(KEYS[1]) is None
    keys = [f"ab{i:030x}" for i in range(16, 31)]
    for key in keys:
        found().put(key, bytes(1000))
        time.sleep(0.002)
    assert found().get(keys[3]) == bytes(1000)
    assert found().size().entries == 15
    assert found().size().bytes >= 15_000
    found().set_limit(len(PARTS) * 5 * 1100)
    assert found().size().entries == 4
    assert found().get(keys[-1]) == bytes(1000)
    assert found().limit == len(PARTS) * 5 * 1100
    found().put(keys[0], b"")
    assert found().clear().entries == 5
    assert found().get(keys[-1]) is None


def test_a_url_that_nothing_opens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="the store nowhere://x can't be opened"):
        open_store("nowhere://x")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(
        ConfigError, match=r"needs the package fsspec: pip install swatsim\[remote\]"
    ):
        open_store("memory://x")


def test_what_a_server_raises_costs_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = open_store("memory://refused")
    assert found is not None

    def refuse(*arguments: object, **named: object) -> None:
        raise RuntimeError("credentials are missing")

    for name in ("cat_file", "pipe_file"):
        monkeypatch.setattr(f"fsspec.implementations.memory.MemoryFileSystem.{name}", refuse)
    for key in KEYS[:3]:
        assert found.get(key) is None
        found.put(key, b"counts")
    assert [it.levelname for it in caplog.records if it.levelname != "INFO"] == ["WARNING"]
    assert "credentials are missing" in caplog.text
