"""Set up before anything imports numba or matplotlib."""

import gc
import os

# out-of-bounds reads in a kernel return garbage otherwise
os.environ["NUMBA_BOUNDSCHECK"] = "1"
os.environ["MPLBACKEND"] = "Agg"
# tests compute what they test, and write nothing where their user keeps things
os.environ["SWATSIM_STORE"] = ""

from hypothesis import settings

# time is measured in benchmarks, and asserted nowhere: a busy machine fails no test
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# Python's own is a walk every 700 new objects, of which a kernel's compilation makes millions
gc.set_threshold(10_000, 10, 10)
