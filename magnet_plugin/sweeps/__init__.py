"""Grids of jobs: SLURM settings and launcher, records of past runs, tables and plots; `magnet grid-report`."""
