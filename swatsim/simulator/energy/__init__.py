"""Events times energy per event: `table` reads energies and areas, `energy` counts, multiplies."""
