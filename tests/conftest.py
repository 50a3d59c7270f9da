"""Set up before anything imports numba or matplotlib."""

import os

# out-of-bounds reads in a kernel return garbage otherwise
os.environ["NUMBA_BOUNDSCHECK"] = "1"
os.environ["MPLBACKEND"] = "Agg"
