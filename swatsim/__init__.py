"""swatsim."""
