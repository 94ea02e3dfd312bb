"""Machines that run already and are not ours alone: reached by a command, left as they were found."""
