"""What a sweep has finished, on disk: a file a point, whole or absent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swatsim.errors import ResultsError
from swatsim.files import publish
from swatsim.reports import tables
from swatsim.reports.span import Span, span_of
from swatsim.results import SCHEMA_VERSION, Results, check_folder, read_parquet, write_files

POINTS, FAILED = "points", "failed"
INDEX = "sweep.json"


class Store:
    """The folder of a sweep.

    Parameters
    ----------
    folder : path

    Raises
    ------
    ResultsError
        If it can't or mustn't be written to.
    """

    def __init__(self, folder: Path) -> None:
        check_folder(folder)
        self.folder = folder
        self._totals: dict[str, tuple[list[dict[str, Any]], Span]] = {}

    @staticmethod
    def key(resolved: Mapping[str, Any]) -> str:
        """Name a point by all that its numbers depend on (16 hex digits)."""
        text = json.dumps(resolved, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def is_done(self, key: str) -> bool:
        """Tell whether a point is finished: its file is there, to its end, and of this schema."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            known = pq.read_metadata(self._path(key))  # it ends the file: a part of one has none
        except (OSError, pa.ArrowException):
            return False
        version = (known.metadata or {}).get(b"schema_version", b"").decode()
        return version == str(SCHEMA_VERSION) and known.num_rows > 0

    def save(self, key: str, results: Results) -> None:
        """Keep a finished point.

        Raises
        ------
        ResultsError
            If there is no room or no permission; what is finished stays.
        """
        self._failure(key).unlink(missing_ok=True)
        self._publish(self._path(key), results.to_parquet())
        self._totals[key] = tables.per_op(results), span_of(results)

    def fail(self, key: str, about: Mapping[str, Any]) -> None:
        """Keep why a point could not be simulated."""
        self._publish(self._failure(key), (json.dumps(about, indent=1) + "\n").encode())

    def failure(self, key: str) -> str | None:
        """Read why a point could not be simulated; None if it could."""
        path = self._failure(key)
        if not path.is_file() or self.is_done(key):
            return None
        try:
            return str(json.loads(path.read_text())["error"])
        except (ValueError, KeyError, TypeError):
            return f"{path} is damaged: run the sweep again"

    def load(self, key: str) -> Results:
        """Read a finished point."""
        return read_parquet(self._path(key))

    def publish(self, contents: Mapping[str, bytes]) -> None:
        """Write files beside the points: all or none."""
        write_files(self.folder, contents)

    def totals(self, key: str) -> list[dict[str, Any]]:
        """Sum up a finished point: its ops, and all of them together."""
        return self._summed(key)[0]

    def span(self, key: str) -> Span:
        """Tell what the sums of a finished point are of."""
        return self._summed(key)[1]

    def _summed(self, key: str) -> tuple[list[dict[str, Any]], Span]:
        if key not in self._totals:
            results = self.load(key)
            self._totals[key] = tables.per_op(results), span_of(results)
        return self._totals[key]

    def discard(self, key: str) -> None:
        """Take away a point that can't be read: the next run does it again."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / POINTS / f"{key}.parquet"

    def _failure(self, key: str) -> Path:
        return self.folder / FAILED / f"{key}.json"

    def _publish(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            publish(path, content)
        except OSError as error:
            raise ResultsError(
                f"can't write to {path}: {error.strerror or error}; points that are finished stay: "
                "make room and run the sweep again"
            ) from None
