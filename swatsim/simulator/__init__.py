"""How long it takes: machines, and what runs a trace through them."""
