from .input import TextInput as TextInput
from .input import of_graph as of_graph
from .kind import NAME as NAME
from .plain import WordCounts as WordCounts

__all__: list[str]
