"""Ranks: process groups, heartbeat, FSDP, seeds, loss reduction and signals."""
