"""Hugging Face models: transformers' own layers through TransformerLens's bridge, with our mixers at the seam.

A family is one file in `families` and one line in its table. `seam` hands tensors over and checks that they fit,
`component` puts the hook points into the bridge, `attention` carries the key/value cache, `model` is the result,
`loading` finds the files.
"""

from strobe.models.huggingface.loading import load_huggingface
from strobe.models.huggingface.model import HuggingFaceLM
from strobe.models.huggingface.status import SeamStatus, seam_status

__all__ = ["HuggingFaceLM", "SeamStatus", "load_huggingface", "seam_status"]
