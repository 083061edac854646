"""Launchers: one thin absl program a stage, `python -m experiments.<stage> --config=configs/<x>.py --workdir=<dir>`."""
