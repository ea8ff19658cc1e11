"""Generated clips as files, and `magnet demo` with the HTML page it writes."""
