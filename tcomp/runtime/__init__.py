"""What a compiled module needs to run."""
