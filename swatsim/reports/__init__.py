"""Tables and plots. Reads results, and nothing else."""
