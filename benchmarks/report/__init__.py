"""Everything that is computed from `results.json`."""
