"""Events times energy per event: `table` reads the energies, `energy` counts and multiplies."""
