"""From a training run to a trace.

`recorder` is framework-free; `pytorch` is the only file that imports torch.
"""
