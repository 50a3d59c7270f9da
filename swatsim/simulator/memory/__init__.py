"""Buffers and DRAM between the PEs and the operands: `README.md` says how they are counted.

`config` has the parameters, `tensors` says how many bits a block has, `plan` and `search` choose
the blocks, `walk` walks them, `feed` puts it together.
"""
