from .alter import alter_text as alter_text
from .input import TextInput as TextInput
from .kind import NAME as NAME
from .pieces import for_app as for_app
from .rows import count_cut as count_cut
from .rows import of_graph as of_graph
from .rows import of_tokenizer as of_tokenizer
from .rows import pack as pack
from .rows import rows_of as rows_of
from .rows import rows_unless_large as rows_unless_large
from .rows import unpack as unpack
from .tf_idf import weigh_words as weigh_words

__all__: list[str]
