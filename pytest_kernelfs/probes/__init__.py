"""What samples the guest: unmount times, writeback, tasks in uninterruptible sleep."""
