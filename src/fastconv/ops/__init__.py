"""The operations: docstring, geometry, backend call; no formula and no loop of a kernel."""
