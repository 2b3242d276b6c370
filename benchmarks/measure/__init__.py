"""The measurements. Each returns plain numbers for `results.json`."""
