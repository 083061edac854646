"""Speed and memory: `python -m benchmarks` runs the cases beside the machine's own ceiling; the scripts here measure one thing each."""
