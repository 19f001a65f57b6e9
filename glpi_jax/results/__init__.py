"""What a run leaves behind for readers: results.json, benchmark.json and metrics.csv."""
