"""One self-contained HTML page of results: drawn here, looked up and written elsewhere."""
