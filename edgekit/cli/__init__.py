"""The edgekit command line."""
