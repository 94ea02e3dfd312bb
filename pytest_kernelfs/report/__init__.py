"""What a run leaves to read: the matrix in the terminal, and the reports in files."""
