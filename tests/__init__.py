"""Tests with real files, servers on loopback, processes and a browser instead of mocks."""
