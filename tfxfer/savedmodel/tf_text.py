"""The operations of TensorFlow Text, which exist only after its package was imported."""

import importlib
from collections.abc import Set

from tensorflow.python.framework import op_def_registry

from tfxfer.errors import MissingExtraError

# They read a vocabulary from a look-up table.
WITH_TABLE = frozenset({"WordpieceTokenizeWithOffsets"})
MODEL = "SentencepieceOp"  # holds a SentencePiece model as bytes
# They use it.
WITH_MODEL = frozenset(
    """
        SentencepieceDetokenizeOp SentencepieceIdToStringOp SentencepieceStringToIdOp
        SentencepieceTokenizeOp SentencepieceTokenizeWithOffsetsOp SentencepieceVocabSizeOp
    """.split()
)
SENTENCEPIECE = WITH_MODEL | {MODEL}  # allowed with --trust only, see `sentencepiece`
# They compute on strings and numbers in memory, and reach no file.
OPERATIONS = WITH_TABLE | frozenset(
    """
        CaseFoldUTF8 ConstrainedSequence FastBertNormalize FastWordpieceTokenizeWithOffsets
        FindSourceOffsets NormalizeUTF8 NormalizeUTF8WithOffsetsMap PhraseTokenize
        RegexSplitWithOffsets SentenceFragments SentenceFragmentsV2 SplitMergeTokenizeWithOffsets
        TokenizerFromLogits UnicodeScriptTokenizeWithOffsets WhitespaceTokenizeWithOffsets
        TFText>BoiseTagsToOffsets TFText>ByteSplitByOffsets TFText>ByteSplitWithOffsets
        TFText>FastWordpieceDetokenize TFText>NgramsStringJoin TFText>OffsetsToBoiseTags
        TFText>PhraseDetokenize TFText>RoundRobinGenerateMasks TFText>RoundRobinTrim
        TFText>Utf8Binarize TFText>WhitespaceTokenizeWithOffsetsV2
    """.split()
)


def load_operations(names: Set[str], what: str) -> None:
    """Import TensorFlow Text where a graph needs it.

    Args:
        names: the operations of the graph.
        what: what needs them, for the error.

    Raises:
        MissingExtraError: TensorFlow Text is not installed, or not for this TensorFlow.
    """
    needed = names & (OPERATIONS | SENTENCEPIECE)
    if all(op_def_registry.get(name) is not None for name in needed):
        return
    try:
        importlib.import_module("tensorflow_text")
    except (ImportError, OSError) as error:
        raise MissingExtraError(what, "text") from error
