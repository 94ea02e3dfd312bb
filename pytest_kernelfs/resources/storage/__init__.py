"""Storage for containers: images, writable copies of them, and how much room all takes."""
