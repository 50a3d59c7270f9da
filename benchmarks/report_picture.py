"""Make the tutorial's picture of a report: the top of the page, as a browser shows it.

    python benchmarks/report_picture.py

Needs a Chromium (Debian: apt install chromium).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import swatsim

ROOT = Path(__file__).parents[1]
TRACE = ROOT / "traces" / "resnet8-fashion-mnist-swat-u-80"
PICTURE = ROOT / "benchmarks" / "figures" / "report.png"


def main() -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no Chromium on this machine: apt install chromium")
    with tempfile.TemporaryDirectory() as folder:
        page = swatsim.report(swatsim.simulate(TRACE, "tensordash"), folder)[0]
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        size = ["--window-size=1100,905", "--virtual-time-budget=2000"]
        command = [browser, *flags, *size, f"--screenshot={PICTURE}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
