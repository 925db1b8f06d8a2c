"""How to use each format: the text of model cards. PLACE is a directory or a hub id."""

OWN = """\
```
pip install attention-is-all-you-need
transformer translate PLACE --text "..."
```

```python
from transformer import Translator

print(Translator.load("PLACE").translate(["..."]))
```"""

HUGGING_FACE = """\
```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("PLACE"), AutoModelForSeq2SeqLM.from_pretrained("PLACE")
inputs = tokenizer(["..."], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True))
```"""

CTRANSLATE2 = """\
```
pip install 'attention-is-all-you-need[ctranslate2]'
transformer translate PLACE --engine ctranslate2 --text "..."
```

Without this package (CTranslate2 adds `</s>`):

```python
from ctranslate2 import Translator
from sentencepiece import SentencePieceProcessor

source, target = (SentencePieceProcessor(model_file=f"PLACE/{side}.spm") for side in ("source", "target"))
found = Translator("PLACE").translate_batch([source.encode("...", out_type=str)], beam_size=4, max_input_length=0)
print(target.decode_pieces(found[0].hypotheses[0]))
```"""

_GRAPHS = """\
The encoder reads ids of pieces with `</s>`, 3, at the end, padded with 0. The decoder begins with `<s>`, 2, and a past
of no positions; its rows are those of the encoder.

```python
import json

import numpy as np
LOAD
from sentencepiece import SentencePieceProcessor

source, target = (SentencePieceProcessor(model_file=f"PLACE/{side}.spm") for side in ("source", "target"))
ids_of = json.load(open("PLACE/vocab.json"))
pieces = list(json.load(open("PLACE/TARGET.json")))

RUN
memory = run(encoder, np.array([[*(ids_of.get(x, 1) for x in source.encode("...", out_type=str)), 3]]))
past = [np.zeros((*x.shape[:3], 0, x.shape[4]), x.dtype) for x in memory[:2]]
ids = [2]
while ids[-1] != 3 and len(ids) < 100:  # the most probable piece at each step
    logits, *past = run(decoder, np.array(ids[-1:]), *memory, *past)
    ids.append(int(logits[0].argmax()))
print(target.decode_pieces([pieces[x] for x in ids if x > 3]))
```"""

ONNX = _GRAPHS.replace("LOAD", "from onnxruntime import InferenceSession").replace(
    "RUN",
    """\
encoder, decoder = InferenceSession("PLACE/encoder.onnx"), InferenceSession("PLACE/decoder.onnx")


def run(session, *inputs):
    return session.run(None, {x.name: value for x, value in zip(session.get_inputs(), inputs, strict=True)})

""",
)

TORCH = _GRAPHS.replace("LOAD", "import torch").replace(
    "RUN",
    """\
encoder, decoder = (torch.export.load(f"PLACE/{name}.pt2").module() for name in ("encoder", "decoder"))


def run(module, *inputs):
    with torch.no_grad():
        return [x.numpy() for x in module(*map(torch.from_numpy, inputs))]

""",
)

OPUS = """\
Marian's own tools read it, and so do converters of OPUS-MT models:

```
transformer translate PLACE --text "..."
ct2-opus-mt-converter --model_dir PLACE --output_dir DIRECTORY
```"""


# Those read hub ids; the others a directory.
_FROM_THE_HUB = (OWN, HUGGING_FACE)


def usage_text(template: str, place: str, *, is_separate: bool) -> str:
    """How to use a model at a place, a directory or a hub id, with a vocabulary for both sides or one for each."""
    if "/" in place and template not in _FROM_THE_HUB:
        name = place.rpartition("/")[2]
        template, place = f"```\nhf download {place} --local-dir {name}\n```\n\n{template}", name
    return template.replace("TARGET.json", f"{'target_' * is_separate}vocab.json").replace("PLACE", place)
