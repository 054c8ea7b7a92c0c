"""Machines that are rebooted and lose their power: what they are made of, what
runs in them, and what an administrator does to them."""
