"""Run a sweep on a Slurm of one node that is set up for it on this machine, and taken down again.

    python benchmarks/slurm_node.py

On Debian (or its like) and as root: installs slurmctld, slurmd, slurm-client and munge if they are
not there, which stay. Configuration, key, sockets, state and logs lie in a folder that goes; a
Slurm that is configured on this machine is not touched, for ports and files are others.

While the sweep runs, the process of one of its jobs is killed (`kill -9`), and another job requeued
by Slurm. Prints what became of them, and exits with 1 unless the results are those of a pool of
processes, and nothing is left in the queue.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from swatsim.results import read_parquet

ROOT = Path(__file__).parents[1]
TRACE = ROOT / "traces/resnet8-fashion-mnist-swat-u-80"
SWEEP = (TRACE, "-m", "scale-sim-ws", "--set", "rows=4,8", "--set", "dram=hbm2,ddr4-3200")
PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
}
#: How the process of a job begins.
PROCESS = [b"-u", b"-m", b"submitit.core._submit"]
#: For a node to be ready, for a sweep.
PATIENCE, LONGEST = 60, 1200

CONFIGURATION = """\
ClusterName=here
SlurmctldHost=localhost
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort=26817
SlurmdPort=26818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
KillWait=2
NodeName=localhost CPUs={cores} State=UNKNOWN
PartitionName=here Nodes=localhost Default=YES MaxTime=60 State=UP
"""


def install() -> None:
    """Install what is missing of Slurm."""
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if missing:
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def cluster() -> Iterator[Path]:
    """Run a Slurm of one node while a block runs; yield its folder."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o711)  # munged wants its socket where everybody may reach it
    try:
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
        (folder / "munge.key").chmod(0o400)
        text = CONFIGURATION.format(folder=folder, cores=os.cpu_count())
        (folder / "slurm.conf").write_text(text)
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        munge = ("key-file", "key"), ("socket", "sock"), ("pid-file", "pid"), ("log-file", "log")
        places = [f"--{option}={folder}/munge.{end}" for option, end in munge]
        run("munged", *places, f"--seed-file={folder}/munge.seed")
        run("slurmctld")
        run("slurmd", "-N", "localhost")
        until(lambda: "idle" in run("sinfo", "--noheader", "--format=%T", check=False), "a node")
        yield folder
    finally:
        for name in ("slurmd", "slurmctld", "munge"):
            with suppress(OSError, ValueError):
                end(int((folder / f"{name}.pid").read_text()))
        shutil.rmtree(folder)


def end(pid: int) -> None:
    """End a process that is no child of this one, and wait for it."""
    os.kill(pid, signal.SIGTERM)
    with suppress(ProcessLookupError):
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)


def run(*command: str, check: bool = True) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and found.returncode:
        raise SystemExit(f"{' '.join(command)}: {found.stderr}")
    return found.stdout


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {PATIENCE} s")
        time.sleep(0.05)


def jobs_of(sweep: Path) -> dict[str, int]:
    """Return the processes of a sweep's jobs that run, by the number of the job."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            # not srun, which has the same words behind its own
            if words[1:4] == PROCESS and bytes(sweep / "slurm") in words:
                environment = (process / "environ").read_bytes().split(b"\0")
                (job,) = (it for it in environment if it.startswith(b"SLURM_JOB_ID="))
                found[job.partition(b"=")[2].decode()] = int(process.name)
    return found


def disturb(sweep: Path) -> tuple[str, str]:
    """Kill the process of one job, and have Slurm requeue another; return their numbers."""
    until(lambda: jobs_of(sweep), "a job of Slurm")
    killed, pid = next(iter(jobs_of(sweep).items()))
    os.kill(pid, signal.SIGKILL)
    until(lambda: jobs_of(sweep).keys() - {killed}, "another job of Slurm")
    requeued = next(iter(jobs_of(sweep).keys() - {killed}))
    run("scontrol", "requeue", requeued)
    return killed, requeued


def rows_of(sweep: Path) -> dict[str, object]:
    return {path.name: read_parquet(path).rows for path in (sweep / "points").iterdir()}


def main() -> None:
    install()
    swatsim = [sys.executable, "-m", "swatsim", "sweep", *map(str, SWEEP), "--step", "0", "-o"]
    with cluster() as folder, (folder / "output").open("w+") as output:
        plain, sweep = folder / "plain", folder / "sweep"
        subprocess.run([*swatsim, str(plain)], check=True, stdout=output, stderr=output)
        begun = time.monotonic()
        submitted = [*swatsim, str(sweep), "--slurm", "time=10"]
        process = subprocess.Popen(submitted, stdout=output, stderr=output)
        try:
            killed, requeued = disturb(sweep)
            code = process.wait(LONGEST)
        finally:
            process.terminate()
        output.seek(0)
        told = output.read()
        wall, ours, theirs = time.monotonic() - begun, rows_of(sweep), rows_of(plain)
        version = run("sinfo", "--version").split()[1]
        left = run("squeue", "--noheader")
    if code or ours != theirs or left or "submitted again" not in told:
        raise SystemExit(
            f"{told}\nexit code {code}, equal {ours == theirs}, left: {left or 'none'}"
        )
    print(
        f"Slurm {version}, one node of {os.cpu_count()} CPUs: {len(ours)} points in {wall:.0f} s; "
        f"job {killed} was killed and submitted again, job {requeued} requeued; results equal a "
        "pool's"
    )


if __name__ == "__main__":
    main()
