"""The code that runs inside a machine: the standard library only, Python 3.8 or newer.

Nothing here imports anything of the host's side. Functions take and give only
what execnet can carry: None, bool, int, float, str, bytes, list, tuple, dict.
"""
