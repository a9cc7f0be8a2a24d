"""The Space of this metric: a form that computes it. Runs where gradio 3 is, as on the Hub: `python app.py`."""

from pathlib import Path

import evaluate
from evaluate.utils import launch_gradio_widget

# By the script's path and not by a repository's name: a copy under any name works.
module = evaluate.load(str(Path(__file__).with_name("neutrality.py")))
launch_gradio_widget(module)
