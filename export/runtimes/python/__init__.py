"""Runners in Python: `python -m export.runtimes.python.NAME ARTIFACT_DIR CASES_DIR ANSWERS_DIR`."""
