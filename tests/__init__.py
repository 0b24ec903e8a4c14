"""Tests on real parts: real files, servers on loopback, real processes, a real browser."""
