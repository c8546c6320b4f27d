"""``python -m snn_dendrite_plugin``: the command ``snn-dendrite``."""

from .cli import app

if __name__ == "__main__":
    app(prog_name="python -m snn_dendrite_plugin")
