"""`magnet bench`: the plugin beside its peers, in turn, in one process, on the same random weights."""
