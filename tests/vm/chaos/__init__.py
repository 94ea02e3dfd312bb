"""What happens to runs that are ended, crowded or robbed at the worst moment."""
