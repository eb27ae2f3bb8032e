"""Measurements of memedit: accuracy on public benchmarks, and speed. Each module runs from the command line."""
