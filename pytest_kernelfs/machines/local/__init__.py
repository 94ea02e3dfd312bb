"""Tests on this host's own kernel, in namespaces of their own."""
