"""The vagrant provider: machines with a distribution of their own, started from boxes."""
