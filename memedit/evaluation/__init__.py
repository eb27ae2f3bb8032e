"""Measures edits: benchmark files, the papers' metrics, resumable runs, reports. `benchmarks/` is its command line."""
