"""How fast machines come and go: ``python -m benchmarks`` measures and writes docs/benchmarks.md."""
