"""From a training run to a trace.

`recorder` is framework-free, as is `session`, which decides what of a run is recorded; `pytorch` is
the only package that imports torch.
"""
