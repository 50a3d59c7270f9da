"""Where samples are after an operation: a place, and a rule for each of torch's operations."""
