"""What a test holds in a machine: disks, loop devices, file systems, overlays."""
