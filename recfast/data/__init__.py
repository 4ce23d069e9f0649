"Data: `from recfast.data import CollabDataLoaders` imports the room that has it, and every builder when it is asked for"
from ..core import offer_rooms as _offer_rooms

__getattr__ = _offer_rooms(__name__)
