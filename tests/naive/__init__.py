"""The naive twins: plain Python, one PE at a time, carrying values through the schedule."""
