"""What a graph may not do unless the user says so: reach files, Python, other processes or the network."""

from pathlib import Path

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfxfer import stages
from tfxfer.errors import DeniedOperationError, SavedModelError

DENIED = frozenset(
    """ReadFile WriteFile MatchingFiles ShardedFilename PyFunc PyFuncStateless EagerPyFunc PrintV2 Print DebugIdentity DebugIdentityV2 DebugNumericSummary
    SaveDataset SaveDatasetV2 LoadDataset SnapshotDataset SnapshotDatasetV2 TextLineDataset TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset
    FixedLengthRecordDatasetV2 SqlDataset ExperimentalSqlDataset LMDBDataset ExperimentalLMDBDataset CSVDataset CSVDatasetV2 WholeFileReader WholeFileReaderV2
    TextLineReader TextLineReaderV2 TFRecordReader TFRecordReaderV2 FixedLengthRecordReader FixedLengthRecordReaderV2 LMDBReader IdentityReader
    IdentityReaderV2 CreateSummaryFileWriter CreateSummaryDbWriter ImportEvent WriteSummary DatasetToTFRecord ExperimentalDatasetToTFRecord
    LoadAndRemapMatrix GenerateVocabRemapping DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4 RegisterDataset
    RegisterDatasetV2 RpcCall RpcClient RpcServer RpcServerStart RpcServerRegister _Send _Recv _HostSend _HostRecv Send Recv CollectiveGather
    XlaSendToHost XlaRecvFromHost Abort ImmutableConst FixedUnigramCandidateSampler CacheDataset CacheDatasetV2 DebugIdentityV3 DebugNanCount
    DebugNumericSummaryV2 DumpTensor MatchingFilesDataset ExperimentalMatchingFilesDataset ExperimentalCSVDataset CalibrationStatisticsSaver DistributedSave
    Skipgram RemoteCall XlaCustomCall XlaCustomCallV2 XlaCallModule RecordInput SnapshotChunkDataset SnapshotDatasetReader SnapshotNestedDatasetReader
    ListSnapshotChunksDataset FileSystemSetConfiguration SummaryWriter WriteAudioSummary WriteGraphSummary WriteHistogramSummary WriteImageSummary
    WriteRawProtoSummary WriteScalarSummary FlushSummaryWriter CloseSummaryWriter DTensorRestoreV2 Copy CopyHost CollectiveReduce CollectiveReduceV2
    CollectiveReduceV3 CollectiveBcastSend CollectiveBcastRecv CollectiveBcastSendV2 CollectiveBcastRecvV2 CollectiveGatherV2 CollectiveAllToAllV2
    CollectiveAllToAllV3 CollectiveInitializeCommunicator NcclAllReduce NcclBroadcast NcclReduce InitializeTableFromTextFile
    InitializeTableFromTextFileV2""".split()
)
CHECKPOINT = frozenset(
    {"Save", "SaveV2", "SaveSlices", "Restore", "RestoreV2", "RestoreSlice", "MergeV2Checkpoints"}
)


def check_library(folder: Path, denied: frozenset[str]) -> None:
    """Look for denied operations before anything is loaded, since loading runs initializers."""
    path = folder / "saved_model.pb"
    try:
        proto = SavedModel.FromString(path.read_bytes())
    except OSError as error:
        raise SavedModelError(
            f"{path} can't be read ({error.strerror or error}). A SavedModel is a folder with saved_model.pb and variables/."
        ) from error
    except Exception as error:  # protobuf's DecodeError has another home in each implementation
        if type(error).__name__ != "DecodeError":
            raise
        raise SavedModelError(
            f"{path} is damaged: it is not a SavedModel ({error}). Fetch or export it again."
        ) from error
    if not proto.meta_graphs:
        raise SavedModelError(f"{path} is damaged: it holds no graph. Fetch or export it again.")
    graph = proto.meta_graphs[0]
    if not graph.object_graph_def.nodes:
        raise SavedModelError(
            f"{folder} is a TF1-format SavedModel (written by tf.compat.v1), which can't be fine-tuned. "
            "Look for a TF2 version of the model, or export it again with tf.saved_model.save."
        )
    if denied:
        # Only what belongs to an object can run. The two functions that save and restore the checkpoint belong to none: Python does their work on loading.
        everywhere = {
            node.op for function in graph.graph_def.library.function for node in function.node_def
        } | {node.op for node in graph.graph_def.node}
        refuse(everywhere & (denied - {"ShardedFilename"}), str(folder))
        refuse(
            called_operations(graph.graph_def, set(graph.object_graph_def.concrete_functions))
            & CHECKPOINT,
            str(folder),
        )


def called_operations(graph: GraphDef, roots: set[str]) -> set[str]:
    """The operations of some functions and of all that these call, through any attribute."""
    functions = {function.signature.name: function for function in graph.library.function}

    def calls(name: str) -> list[str]:
        attributes = [value for node in functions[name].node_def for value in node.attr.values()]
        named = (
            {value.func.name for value in attributes}
            | {f.name for value in attributes for f in value.list.func}
            | {node.op for node in functions[name].node_def}
        )
        named |= {
            gradient.gradient_func
            for gradient in graph.library.gradient
            if gradient.function_name == name
        }
        return sorted(named & functions.keys())

    return {
        node.op
        for name in stages.reach(roots & functions.keys(), calls)
        for node in functions[name].node_def
    }


def check_graph(graph: GraphDef, denied: frozenset[str], where: str) -> None:
    """Refuse a graph that holds one of the `denied` operations, in its body or in its functions."""
    refuse(
        (
            {node.op for node in graph.node}
            | {node.op for function in graph.library.function for node in function.node_def}
        )
        & denied,
        where,
    )


def refuse(found: set[str], where: str) -> None:
    if found:
        raise DeniedOperationError(
            f"{where} holds {', '.join(sorted(found))}, which can read or write files, run Python or open the network. "
            "A graph is code: use --trust (trust=True) only if you know who made it."
        )
