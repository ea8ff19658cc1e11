"""Real processes that something happens to, seeded."""
import os

#: Read when this is imported: the environment of the tests is that of a bare machine.
REPORTS = os.environ.get("MAGNET_REPORTS")
ROUNDS = int(os.environ.get("MAGNET_FAULT_ROUNDS", "20"))
