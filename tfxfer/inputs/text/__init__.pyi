from .input import TextInput as TextInput
from .input import count_cut as count_cut
from .input import of_graph as of_graph
from .input import of_tokenizer as of_tokenizer
from .kind import NAME as NAME
from .tf_idf import weigh_words as weigh_words

__all__: list[str]
