"""How the model of a card is called: by transformers, by our pipeline, and over HTTP where it is hosted.

The Python blocks run as they stand, beside the model's folder or with its id on the Hub; a test executes them.
"""

from __future__ import annotations

import re
from string import Template

from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.cards.markdown import escape
from trl_rewards_plugin.text import one_line

MAX_NEW_TOKENS = 64
PROMPT_LENGTH = 500

_GENERATE = Template("""```python
$imports

name = $name  # this folder, or its id on the Hub
tokenizer = AutoTokenizer.from_pretrained(name)
model = $model_class.from_pretrained(name)
text = $text
$encode
output = model.generate(**inputs, max_new_tokens=$length)
print(tokenizer.decode(output[0]$response, skip_special_tokens=True))
```""")

_PIPELINE = Template("""\
Or by the `text2text-generation` pipeline, which transformers 5 no longer has and `trl_rewards_plugin` gives back:

```python
from trl_rewards_plugin.pipelines import text2text_pipeline

pipe = text2text_pipeline($name)
text = $text
print(pipe(text, max_new_tokens=$length)[0]["generated_text"])
```""")

_HOSTED = Template("""\
Deployed as an Inference Endpoint (**Deploy** on the model's page), it answers over HTTP.
`ENDPOINT_URL` is the address that the endpoint's page shows, `HF_TOKEN` a token of yours:

```python
import json
import os
import urllib.request

text = $text
request = urllib.request.Request(
    os.environ["ENDPOINT_URL"],
    data=json.dumps({"inputs": text}).encode(),
    headers={"Authorization": f"Bearer {os.environ['HF_TOKEN']}", "Content-Type": "application/json"},
)
with urllib.request.urlopen(request) as answer:
    print(json.load(answer))
```""")


def quickstart(data: RewardModelCardData) -> str:
    """Generation by transformers; for an encoder-decoder by our pipeline, too."""
    kind = "Seq2SeqLM" if data.encoder_decoder else "CausalLM"
    model_class = f"AutoPeftModelFor{kind}" if data.adapter else f"AutoModelFor{kind}"
    encode = 'inputs = tokenizer(text, return_tensors="pt")'
    if data.chat:
        encode = (
            'messages = [{"role": "user", "content": text}]\n'
            "inputs = tokenizer.apply_chat_template(\n"
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"\n)'
        )
    values = {
        "imports": _imports(model_class, data.adapter),
        "model_class": model_class,
        "name": _literal(data.model_name),
        "encode": encode,
        "text": prompt_literal(data),
        "length": data.max_new_tokens or MAX_NEW_TOKENS,
        # A decoder's output begins with its prompt.
        "response": "" if data.encoder_decoder else '[inputs["input_ids"].shape[1] :]',
    }
    block = _GENERATE.substitute(values)
    if not data.encoder_decoder or data.adapter:
        return block
    return f"{block}\n\n{_PIPELINE.substitute(values)}"


def _imports(model_class: str, adapter: bool) -> str:
    if adapter:
        return f"from peft import {model_class}\nfrom transformers import AutoTokenizer"
    return f"from transformers import {model_class}, AutoTokenizer"


def hosted(data: RewardModelCardData) -> str:
    """The call over HTTP."""
    return _HOSTED.substitute(text=prompt_literal(data))


def prompt_literal(data: RewardModelCardData) -> str:
    """The first prompt as the code blocks show it, or what stands in for one."""
    first = data.prompts[0] if data.prompts else f"{data.prompt_prefix}Your text here."
    return _literal(one_line(first, PROMPT_LENGTH))


def _literal(text: str) -> str:
    """`text` as a Python string in double quotes on one line."""
    return '"' + one_line(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def with_name(card: str, name: str) -> str:
    """A card of ours with another name in its title, its code and its metadata."""
    title = escape(name.rpartition("/")[2])
    card = re.sub(r"(?m)^# .*$", lambda found: f"# {title}", card, count=1)
    return re.sub(
        r'(?m)^(name = |pipe = text2text_pipeline\()"(?:[^"\\]|\\.)*"', lambda found: found[1] + _literal(name), card
    )
