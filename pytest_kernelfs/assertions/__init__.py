"""The assert_* helpers: they judge what probes measured, and say a failure as a sentence with its numbers."""
