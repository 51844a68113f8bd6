"""Hub: models on the Hugging Face Hub, pushed in one commit and loaded without running code.

A repository holds what Keras itself reads from the hub (`config.json`, `model.weights.h5`), the
files of the run without its data, an exported artifact in `artifact/`, and a model card whose
metadata are the measured bounds.
"""

from keras_vae.hub.contents import HubError
from keras_vae.hub.load import from_hub, pull
from keras_vae.hub.push import Pushed, push_to_hub

__all__ = ["HubError", "Pushed", "from_hub", "pull", "push_to_hub"]
