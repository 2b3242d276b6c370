"""The contenders in Python, one module each, the configuration of nginx, and `table`, which lists all contenders."""
