"""Grids for `dora grid magnet.NAME`; `_base.py` says how one is written."""
