"""The Space of this metric: a form that computes it. Runs where gradio 3 is, as on the Hub: `python app.py`."""

from pathlib import Path

import evaluate
from evaluate.utils import launch_gradio_widget

# The one script beside this file, so that a copy under any name works as it is.
(script,) = (path for path in Path(__file__).parent.glob("*.py") if path.name != "app.py")
launch_gradio_widget(evaluate.load(str(script)))
