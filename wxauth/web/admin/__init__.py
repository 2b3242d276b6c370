"""The operator's page: its files, and the checks of an installation that it shows."""
