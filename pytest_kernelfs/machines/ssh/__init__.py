"""Machines that are reached over ssh: they run already, and are not ours."""
