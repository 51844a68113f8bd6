"""Run directories: their settings, how they are trained, and the commands on them."""
