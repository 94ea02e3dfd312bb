"""Machines that libvirt runs, on this host or on another."""
