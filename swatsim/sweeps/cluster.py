"""A Dask cluster as an executor that says when its scheduler is gone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from types import TracebackType
from typing import Any

from swatsim.errors import ConfigError

#: A scheduler that does not answer for so long is gone.
ANSWER_SECONDS = 30
CONNECT_SECONDS = 5


class Cluster(Executor):
    """A Dask cluster.

    Parameters
    ----------
    address : str
        Its scheduler's.

    Raises
    ------
    ConfigError
        If there is none, or the package distributed is missing.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise ConfigError(
                "--dask needs the package distributed: pip install swatsim[dask]"
            ) from None
        for name in ("distributed", "distributed.client"):
            # it logs tracebacks of what is raised here in one line
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            self._client = Client(address, timeout=CONNECT_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            raise ConfigError(f"no Dask scheduler at {address!r}: {error}") from None
        self._executor: Executor = self._client.get_executor()
        self._address = address

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of a job, submitted."""
        return self._executor.submit(fn, *args, **kwargs)

    def check(self) -> None:
        """Ask the scheduler for an answer.

        Raises
        ------
        BrokenExecutor
            If it does not answer.
        """
        scheduler: Any = self._client.scheduler
        try:
            self._client.sync(scheduler.identity, callback_timeout=ANSWER_SECONDS)
        except (OSError, RuntimeError, TimeoutError) as error:
            raise BrokenExecutor(
                f"the scheduler at {self._address} did not answer for {ANSWER_SECONDS} s"
            ) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        # what runs is given up, and not waited for: a scheduler that is gone would never answer
        self._client.close(timeout=1)
        return None
