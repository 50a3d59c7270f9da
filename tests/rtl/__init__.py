"""Circuits that do what machines' READMEs say, and drivers that compare them with the machines.

Each ``.sv`` file is one circuit; ``drive_*.py`` runs inside the simulator of it (Verilator, through
cocotb); ``test_*.py`` builds and starts them, and is skipped where the tools are missing.
"""
