"""Launchers: the jobs of a sweep side by side, each in a process of its own."""
