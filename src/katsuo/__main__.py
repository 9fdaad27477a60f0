"""Run katsuo as `python -m katsuo`."""

from katsuo.cli.main import run

run()
