"""The guest's root: two cpio archives made of the host's own files, each cached by content."""
