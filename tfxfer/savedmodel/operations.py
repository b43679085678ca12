"""The operations that a graph may hold without --trust: what networks and their preprocessing need.

A SavedModel's graph is a program. TensorFlow registers some 1,900 operations, and among them are
ones that read and write files, run Python, use the internet, or run a second graph that is hidden
in a constant. So an operation is allowed only where it stands in one of these groups, each with the
reason why a network needs it; every other one is refused by name. A new operation of a later
TensorFlow is refused until somebody adds it here: a test goes through all that are registered
(tests/test_operations.py).
"""

ALLOWED_BY_GROUP: dict[str, str] = {
    # Every graph has these. They name, copy and order values and compute nothing.
    "values": """
        Const Identity IdentityN NoOp Placeholder PlaceholderV2 PlaceholderWithDefault
        ControlTrigger StopGradient PreventGradient Snapshot EnsureShape DeepCopy GuaranteeConst
        CheckNumerics CheckNumericsV2 Assert FakeParam DeviceIndex DebugGradientIdentity
    """,
    # Functions and branches. What they call is checked like everything else.
    "control flow": """
        PartitionedCall StatefulPartitionedCall If StatelessIf While StatelessWhile Case
        StatelessCase For ToBool Switch Merge Enter Exit NextIteration LoopCond
    """,
    # The weights of the model, and moving statistics. They are in memory and are reached by handles
    # that the model's own loader makes.
    "variables": """
        VarHandleOp VarIsInitializedOp ReadVariableOp AssignVariableOp AssignAddVariableOp
        AssignSubVariableOp VariableShape ResourceGather ResourceGatherNd ResourceScatterAdd
        ResourceScatterUpdate ResourceStridedSliceAssign DisableCopyOnRead DestroyResourceOp
    """,
    # Arithmetic, element by element.
    "element-wise": """
        Abs AccumulateNV2 Acos Acosh Add AddN AddV2 Angle ApproximateEqual Asin Asinh Atan Atan2
        Atanh BesselI0 BesselI0e BesselI1 BesselI1e Betainc Bitcast BitwiseAnd BitwiseOr
        BitwiseXor Cast Ceil ClipByValue Complex ComplexAbs Conj Cos Cosh Digamma Div DivNoNan
        Equal Erf Erfc Erfinv Exp Expm1 Floor FloorDiv FloorMod Greater GreaterEqual Igamma
        Igammac Imag Inv Invert IsFinite IsInf IsNan LeftShift Less LessEqual Lgamma Log Log1p
        LogicalAnd LogicalNot LogicalOr Maximum Minimum Mod Mul MulNoNan Ndtri Neg NextAfter
        NotEqual OnesLike Pow Real RealDiv Reciprocal RightShift Rint Round Rsqrt Select SelectV2
        Sign Sin Sinh Sqrt Square SquaredDifference Sub Tan Tanh TruncateDiv TruncateMod Xdivy
        Xlog1py Xlogy ZerosLike Zeta Polygamma PopulationCount
    """,
    # Activations, and their gradients, which a training graph may hold.
    "activations": """
        Elu EluGrad LeakyRelu LeakyReluGrad LogSoftmax Relu Relu6 Relu6Grad ReluGrad Selu SeluGrad
        Sigmoid SigmoidGrad Softmax Softplus SoftplusGrad Softsign SoftsignGrad TanhGrad RsqrtGrad
        SqrtGrad ReciprocalGrad InvGrad
    """,
    # Sums, products, sorting.
    "reductions": """
        All Any ArgMax ArgMin Bincount Bucketize Cumprod Cumsum CumulativeLogsumexp DenseBincount
        EuclideanNorm HistogramFixedWidth InTopK InTopKV2 L2Loss Max Mean Min NthElement Prod
        SegmentMax SegmentMaxV2 SegmentMean SegmentMin SegmentMinV2 SegmentProd SegmentProdV2
        SegmentSum SegmentSumV2 Sum TopK TopKV2 ApproxTopK UnsortedSegmentMax UnsortedSegmentMin
        UnsortedSegmentProd UnsortedSegmentSum
    """,
    # Matrices: dense layers, attention, normalisation by whitening.
    "linear algebra": """
        BatchMatMul BatchMatMulV2 BatchMatMulV3 Cholesky Cross Diag DiagPart Eig Einsum
        LogMatrixDeterminant Lu MatMul MatrixBandPart MatrixDeterminant MatrixDiag MatrixDiagPart
        MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 MatrixExponential
        MatrixInverse MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MatrixSolve MatrixSolveLs
        MatrixSquareRoot MatrixTriangularSolve Qr SelfAdjointEigV2 Svd TridiagonalMatMul
        TridiagonalSolve
    """,
    # Shapes, slices, order of elements.
    "shapes": """
        BatchToSpace BatchToSpaceND BroadcastArgs BroadcastGradientArgs BroadcastTo Concat
        ConcatOffset ConcatV2 DataFormatDimMap DataFormatVecPermute DepthToSpace DynamicPartition
        DynamicStitch Empty ExpandDims Fill Gather GatherNd GatherV2 InplaceAdd InplaceSub
        InplaceUpdate InvertPermutation LinSpace ListDiff LowerBound MirrorPad MirrorPadGrad
        OneHot Pack Pad PadV2 ParallelConcat ParallelDynamicStitch Range Rank Reshape Reverse
        ReverseSequence ReverseV2 Roll ScatterNd ScatterNdNonAliasingAdd Shape ShapeN Size Slice
        SpaceToBatch SpaceToBatchND SpaceToDepth Split SplitV Squeeze StridedSlice
        StridedSliceGrad TensorScatterAdd TensorScatterMax TensorScatterMin TensorScatterSub
        TensorScatterUpdate TensorStridedSliceUpdate Tile Transpose ConjugateTranspose Unique
        UniqueV2 UniqueWithCounts UniqueWithCountsV2 Unpack UnravelIndex UpperBound Where
    """,
    # Lists of tensors, which loops and recurrent layers fill.
    "tensor lists": """
        EmptyTensorList TensorListConcat TensorListConcatLists TensorListConcatV2
        TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem
        TensorListLength TensorListPopBack TensorListPushBack TensorListPushBackBatch
        TensorListReserve TensorListResize TensorListScatter TensorListScatterIntoExistingList
        TensorListScatterV2 TensorListSetItem TensorListSplit TensorListStack TensorArrayV3
        TensorArrayCloseV3 TensorArrayConcatV3 TensorArrayGatherV3 TensorArrayReadV3
        TensorArrayScatterV3 TensorArraySizeV3 TensorArraySplitV3 TensorArrayWriteV3
    """,
    # Convolutions, pooling, normalisation, and their gradients.
    "layers": """
        AvgPool AvgPool3D AvgPool3DGrad AvgPoolGrad BatchNormWithGlobalNormalization BiasAdd
        BiasAddGrad BiasAddV1 Conv Conv2D Conv2DBackpropFilter Conv2DBackpropInput
        Conv2DBackpropFilterV2 Conv2DBackpropInputV2 Conv3D Conv3DBackpropFilterV2
        Conv3DBackpropInputV2 DepthwiseConv2dNative DepthwiseConv2dNativeBackpropFilter
        DepthwiseConv2dNativeBackpropInput Dilation2D ExtractImagePatches ExtractVolumePatches
        FractionalAvgPool FractionalMaxPool FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3
        FusedBatchNormGrad FusedBatchNormGradV2 FusedBatchNormGradV3 FusedPadConv2D
        FusedResizeAndPadConv2D LRN LRNGrad MaxPool MaxPool3D MaxPool3DGrad MaxPoolGrad
        MaxPoolGradV2 MaxPoolV2 MaxPoolWithArgmax SoftmaxCrossEntropyWithLogits
        SparseSoftmaxCrossEntropyWithLogits BlockLSTM BlockLSTMV2 GRUBlockCell LSTMBlockCell
        CudnnRNN CudnnRNNV2 CudnnRNNV3 CudnnRNNParamsSize CudnnRNNCanonicalToParams
        CudnnRNNCanonicalToParamsV2
    """,
    # Networks trained for 8 bits carry these in float graphs.
    "quantisation": """
        Dequantize FakeQuantWithMinMaxArgs FakeQuantWithMinMaxArgsGradient FakeQuantWithMinMaxVars
        FakeQuantWithMinMaxVarsGradient FakeQuantWithMinMaxVarsPerChannel
        FakeQuantWithMinMaxVarsPerChannelGradient QuantizeAndDequantize QuantizeAndDequantizeV2
        QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 QuantizeAndDequantizeV4Grad QuantizeV2
    """,
    # Dropout, noise, random augmentation.
    "random numbers": """
        Multinomial NonDeterministicInts ParameterizedTruncatedNormal RandomGamma
        RandomIndexShuffle RandomPoissonV2 RandomShuffle RandomStandardNormal RandomUniform
        RandomUniformInt RngReadAndSkip RngSkip StatefulRandomBinomial StatefulStandardNormalV2
        StatefulTruncatedNormal StatefulUniform StatefulUniformFullInt StatefulUniformInt
        StatelessMultinomial StatelessParameterizedTruncatedNormal StatelessRandomBinomial
        StatelessRandomGammaV2 StatelessRandomGammaV3 StatelessRandomGetAlg
        StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg StatelessRandomNormal
        StatelessRandomNormalV2 StatelessRandomPoisson StatelessRandomUniform
        StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2 StatelessRandomUniformInt
        StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessShuffle
        StatelessTruncatedNormal StatelessTruncatedNormalV2 TruncatedNormal
    """,
    # Pictures: decoding from bytes in memory, sizes, colours, boxes.
    "images": """
        AdjustContrastv2 AdjustHue AdjustSaturation CombinedNonMaxSuppression CropAndResize
        DecodeAndCropJpeg DecodeBmp DecodeGif DecodeImage DecodeJpeg DecodePng DecodeWebP
        DecodeJxl DrawBoundingBoxesV2 EncodeJpeg EncodePng ExtractGlimpseV2 ExtractJpegShape
        HSVToRGB ImageProjectiveTransformV2 ImageProjectiveTransformV3 NonMaxSuppression
        NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5
        NonMaxSuppressionWithOverlaps RGBToHSV RandomCrop ResizeArea ResizeBicubic
        ResizeBicubicGrad ResizeBilinear ResizeBilinearGrad ResizeNearestNeighbor
        ResizeNearestNeighborGrad SampleDistortedBoundingBox SampleDistortedBoundingBoxV2
        StatelessSampleDistortedBoundingBox ScaleAndTranslate ScaleAndTranslateGrad
    """,
    # Sound: spectra, and decoding from bytes in memory.
    "sound": """
        AudioSpectrogram BatchFFT BatchFFT2D BatchIFFT BatchIFFT2D DecodeWav EncodeWav FFT FFT2D
        FFT3D FFTND IFFT IFFT2D IFFT3D IFFTND IRFFT IRFFT2D IRFFT3D IRFFTND Mfcc RFFT RFFT2D
        RFFT3D RFFTND
    """,
    # Texts and bytes in memory: tokens from strings, numbers from bytes, requests of a server.
    "strings": """
        AsString DecodeBase64 DecodePaddedRaw DecodeRaw EncodeBase64 Fingerprint ParseExample
        ParseExampleV2 ParseSequenceExample ParseSequenceExampleV2 ParseSingleExample
        ParseSingleSequenceExample ReduceJoin RegexFullMatch RegexReplace StaticRegexFullMatch
        StaticRegexReplace StringFormat StringJoin StringLength StringLower StringNGrams
        StringSplit StringSplitV2 StringStrip StringToHashBucket StringToHashBucketFast
        StringToHashBucketStrong StringToNumber StringUpper Substr UnicodeDecode
        UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnicodeTranscode UnsortedSegmentJoin
    """,
    # Rows of different lengths, and embeddings of few of many columns.
    "ragged and sparse": """
        RaggedBincount RaggedCross RaggedFillEmptyRows RaggedFillEmptyRowsGrad RaggedGather
        RaggedRange RaggedTensorFromVariant RaggedTensorToSparse RaggedTensorToTensor
        RaggedTensorToVariant RaggedTensorToVariantGradient SparseAdd SparseBincount SparseConcat
        SparseCross SparseCrossHashed SparseCrossV2 SparseDenseCwiseAdd SparseDenseCwiseDiv
        SparseDenseCwiseMul SparseFillEmptyRows SparseReduceMax SparseReduceSum SparseReorder
        SparseReshape SparseSegmentMean SparseSegmentMeanWithNumSegments SparseSegmentSqrtN
        SparseSegmentSqrtNWithNumSegments SparseSegmentSum SparseSegmentSumWithNumSegments
        SparseSlice SparseSoftmax SparseSplit SparseTensorDenseMatMul SparseToDense
    """,
    # Look-up tables, filled from values in the graph. For a file see FROM_ASSET. For operations
    # of TensorFlow Text see `tf_text`.
    "tables": """
        AnonymousHashTable AnonymousMutableHashTable HashTable HashTableV2 InitializeTable
        InitializeTableV2 LookupTableExportV2 LookupTableFind LookupTableFindV2
        LookupTableImportV2 LookupTableInsertV2 LookupTableRemoveV2 LookupTableSize
        LookupTableSizeV2 MutableDenseHashTableV2 MutableHashTableV2 MutableHashTableOfTensorsV2
    """,
    # The images of a request, one by one, so that a damaged image affects only its own row: an
    # export with on_bad_image="null" has these. The data stays in memory, and the functions are
    # checked like all others.
    "datasets in memory": """
        BatchDatasetV2 ConcatenateDataset DatasetToSingleElement IgnoreErrorsDataset MapDataset
        ParallelMapDatasetV2 TensorDataset TensorSliceDataset
    """,
}

ALLOWED = frozenset(name for names in ALLOWED_BY_GROUP.values() for name in names.split())

# These fill a look-up table from a text file. They are allowed only where that file is an asset
# inside the folder. The number is the index of the input that names the file.
FROM_ASSET = {"InitializeTableFromTextFile": 1, "InitializeTableFromTextFileV2": 1}

# These save and restore the weights. They are allowed only in the two functions that
# `tf.saved_model.save` writes for this. Nothing else may call these two functions.
CHECKPOINT = frozenset(
    """
        Save SaveV2 SaveSlices Restore RestoreV2 RestoreSlice MergeV2Checkpoints ShardedFilename
    """.split()
)
