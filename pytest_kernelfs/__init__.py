"""Privileged filesystem and cgroup tests on real, freshly booted kernels."""

__version__ = "0.1.0"
