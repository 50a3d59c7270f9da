"""What was computed once, kept in a folder for whoever asks again: bytes by their keys.

It knows nothing of what it keeps. An entry is found whole or not at all, a fault of the folder
costs a computation and no more, and what was used least recently makes room.
"""

from swatsim.store.opened import Where, open_store
from swatsim.store.store import Looked, Store

__all__ = ["Looked", "Store", "Where", "open_store"]
