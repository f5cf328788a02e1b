"""What tuning is made of: spaces of plans, search, measuring, records. `tcomp.tune` (tuning.py) puts it together."""
