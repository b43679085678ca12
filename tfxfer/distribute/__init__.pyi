from . import dataservice as dataservice
from .devices import strategy as strategy

__all__: list[str]
