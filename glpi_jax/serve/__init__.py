"""A web page and an HTTP API on this machine that score what is dropped on them."""
