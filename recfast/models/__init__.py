"Models: `from recfast.models import EASE` imports the room that has it"
from ..core import offer_rooms as _offer_rooms

__getattr__ = _offer_rooms(__name__)
