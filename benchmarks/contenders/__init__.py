"""The contenders in Python, a file each, and nginx' configuration. `table` says how each is started."""
