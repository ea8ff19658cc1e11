"""The page of `magnet app`: generate, edit, compare and download clips in a browser."""
