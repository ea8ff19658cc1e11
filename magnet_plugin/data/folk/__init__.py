"""The built-in data set: folk tunes on sampled instruments, with correct captions. Start with `dataset`."""
