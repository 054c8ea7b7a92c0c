"""What all tests and measurements in Python start and stop: the built programs,
the emulator as the hub, the daemon, a line between two network namespaces.

tests/pytest.ini puts this package on the path of pytest; a script that runs
without pytest has PYTHONPATH=tests set by the shell script that starts it.
"""
