"""`magnet bench editing`: what the editing methods and long clips sound like, compared with real clips and controls."""
