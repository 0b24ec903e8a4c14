"""Faults of a deployment, run for real: what becomes of a schedule when processes, servers and disks fail."""
