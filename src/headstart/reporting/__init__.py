"""Self-contained HTML pages: the run report and the account of the data."""
