"""How much is too much: the bounds that a file, an answer or a wait may reach. Numbers only.

A stranger's file is small where it is sent and large where it is unpacked. Each bound here lies above
everything that honest files were seen to need, and below what hurts a machine with 4 GB of memory.
"""

# --- images ---

# 8,192 x 6,144, the largest photo of the phones that say "50 megapixels". One picture of that size
# takes 0.6 GB as float32.
MOST_PIXELS = 8192 * 6144
# Where decoding takes twice the memory of a pixel: PNG with 16 bits a channel, and JPEG XL.
MOST_HEAVY_PIXELS = MOST_PIXELS // 2
# Larger images are decoded one at a time, however many cores there are.
LARGE_PIXELS = 4096 * 3072

# A progressive JPEG is decoded scan after scan, each over the whole image: honest files have 10 or so.
# The bytes that begin a scan are counted, also in thumbnails and wherever else they stand by chance.
MOST_SCANNED_PIXELS = 20 * MOST_PIXELS
MOST_SCANS = 1000

# Of a GIF all blocks up to the end of the first frame are visited, a run of blocks of one length at once.
MOST_GIF_RUNS = 10_000
MOST_PIECES = 1_000_000  # segments of a JPEG, chunks of a PNG
MOST_BOXES = 64  # of a JPEG XL file before its image
MOST_EXTRA_CHANNELS = (
    4  # of a JPEG XL beside its colours: alpha, depth; each takes a picture's memory
)

# --- files that are read whole ---

# Of one image file: MOST_PIXELS of four bytes each, not compressed, are 192 MiB.
MOST_BYTES = 256 * 1024**2
MOST_TABLE_BYTES = 256 * 1024**2  # of a CSV table: some two million rows

# --- archives ---

MOST_MEMBERS = 10_000
MOST_PHOTOS = 2_000_000  # in an archive of photos
MOST_UNPACKED = 32 * 1024**3
MOST_RATIO = 100  # weights hardly shrink; a file of zeros shrinks a thousandfold
FREE_UNPACKED = 64 * 1024**2  # small archives may shrink as they like
MOST_HEADER = 1024**2  # of what stands before one member: its long name and its other properties

# --- SavedModels ---

MOST_GRAPH = 1024**3  # bytes of saved_model.pb; weights lie elsewhere
MOST_CONSTANTS = 1024**3  # bytes in memory of all constants in a graph

# --- downloads ---

MOST_DOWNLOADED = 16 * 1024**3  # bytes of one archive
MOST_REDIRECTS = 10
MOST_SILENCE = 60.0  # seconds without a byte
LEAST_RATE = 1024  # bytes a second, on average over a window
RATE_WINDOW = 60.0  # seconds
LONGEST_DOWNLOAD = 12 * 3600.0  # seconds for the whole: 16 GiB at 3 Mbit/s
LONGEST_STANDSTILL = 600.0  # seconds in which another process's download may not grow
MOST_ANSWER = 4096  # bytes of an answer that is only an address

# --- run folders and exports ---

MOST_JSON = 32 * 1024**2  # bytes of a text of settings, figures, labels or a manifest
MOST_ROWS = 2_000_000  # of predictions.csv, as a report reads them
FREE_ARRAYS = 512 * 1024**2  # probabilities of few classes shrink to almost nothing
MOST_ARRAYS = 100_000  # in one .npz file: a checkpoint has one for each weight
FREE_GRAPH = 32 * 1024**2  # a graph's text, without its weights
MOST_MESSAGE = 2**31 - 1  # bytes of a message of Protocol Buffers
GRAPH_RATIO = 20
FREE_WEIGHTS = 64 * 1024**2  # that a model may have beyond what its file holds
MOST_ELEMENTS = 2**28  # of what one layer gives for one image: 1 GiB
MOST_THUMBNAILS = 64 * 1024**2  # they are all on one page
