"""Tools for people who work on tcomp itself."""
