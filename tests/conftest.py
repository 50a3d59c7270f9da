"""Set up before anything imports numba or matplotlib."""

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
