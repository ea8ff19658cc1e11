"""What Dora keeps of a grid's jobs, as rows, tables and pictures; `magnet grid-report`."""
