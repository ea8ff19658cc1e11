"""Grids for `dora grid NAME`. `_base.py` explains how to write one."""
