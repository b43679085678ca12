from .decode import pixels as pixels

__all__: list[str]
