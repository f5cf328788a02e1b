"""Where compiled code runs."""
