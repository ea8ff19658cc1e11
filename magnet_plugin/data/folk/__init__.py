"""The built-in data set: folk tunes rendered on sampled instruments, with captions that are true of each clip."""
