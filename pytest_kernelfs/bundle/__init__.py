"""What is kept of a failed test: gathered while its machine still runs, written into a folder of its own."""
