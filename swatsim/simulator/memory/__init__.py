"""Buffers and DRAM between the PEs and the operands: `README.md` says how they are counted.

`config` has the parameters, `tensors` says how an op is cut, `stores` how many bits a block has,
`plan`, `candidates` and `fine` choose the blocks, `pipeline` runs them, `simulate` puts it
together.
"""
