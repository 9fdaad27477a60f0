"""Run katsuo as `python -m katsuo`."""

from katsuo.cli.main import run
from katsuo.experiment.lifeline import hold_lifeline

hold_lifeline()
run()
