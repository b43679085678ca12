"""Bounds for the size of files and answers and for the length of waits.

A file from a stranger can be small when it is sent and large when it is unpacked. Each bound here
is above everything that ordinary files were seen to need, and below what harms a machine with 4 GB
of memory. This module holds only numbers.
"""

# --- images ---

# 8,192 x 6,144, the largest photo of the phones that say "50 megapixels". One picture of that size
# takes 0.6 GB as float32.
MOST_PIXELS = 8192 * 6144
# Formats in which decoding takes twice the memory for each pixel: PNG with 16 bits per channel, and
# JPEG XL.
MOST_HEAVY_PIXELS = MOST_PIXELS // 2
# Larger images are decoded one at a time, however many cores there are.
LARGE_PIXELS = 4096 * 3072

# A progressive JPEG is decoded scan after scan, each over the whole image. Ordinary files have
# about 10 scans. We count the bytes that begin a scan, also in thumbnails and wherever else they
# occur by chance.
MOST_SCANNED_PIXELS = 20 * MOST_PIXELS
MOST_SCANS = 1000

# All blocks of a GIF up to the end of its first frame are visited. Blocks of the same length that
# follow each other are one run, and are visited at once.
MOST_GIF_RUNS = 10_000
MOST_PIECES = 1_000_000  # segments of a JPEG, chunks of a PNG
MOST_BOXES = 64  # boxes of a JPEG XL file before its image
# Channels of a JPEG XL besides its colours, such as alpha and depth; each takes as much memory as a
# picture.
MOST_EXTRA_CHANNELS = 4

# --- files that are read whole ---

# Bytes of one image file: MOST_PIXELS of four bytes each, not compressed, are 192 MiB.
MOST_BYTES = 256 * 1024**2
MOST_TABLE_BYTES = 256 * 1024**2  # bytes of a CSV table: about two million rows

# --- archives ---

MOST_MEMBERS = 10_000
MOST_EXAMPLES = 2_000_000  # members of an archive of examples
MOST_UNPACKED = 32 * 1024**3
MOST_RATIO = 100  # weights hardly shrink; a file of zeros becomes a thousand times smaller
FREE_UNPACKED = 64 * 1024**2  # bytes; below that, an archive may unpack to any multiple of its size
MOST_HEADER = 1024**2  # bytes before one member: its long name and its other properties

# --- SavedModels ---

MOST_GRAPH = 1024**3  # bytes of saved_model.pb; weights are in other files
MOST_CONSTANTS = 1024**3  # bytes in memory of all constants in a graph

# --- downloads ---

MOST_DOWNLOADED = 16 * 1024**3  # bytes of one archive
MOST_REDIRECTS = 10
MOST_SILENCE = 60.0  # seconds without a byte
LEAST_RATE = 1024  # bytes per second, on average over a window
RATE_WINDOW = 60.0  # seconds
LONGEST_DOWNLOAD = 12 * 3600.0  # seconds for the whole download: 16 GiB at 3 Mbit/s
LONGEST_STANDSTILL = 600.0  # seconds in which another process's download may not grow
MOST_ANSWER = 4096  # bytes of an answer that is only an address

# --- run folders and exports ---

MOST_JSON = 32 * 1024**2  # bytes of a text of settings, figures, labels or a manifest
MOST_ROWS = 2_000_000  # rows of predictions.csv that a report reads
# Bytes of a network that is kept in the cache: with a larger one, the seconds that it saves are not
# worth the disk.
MOST_REMEMBERED = 256 * 1024**2
FREE_ARRAYS = 512 * 1024**2  # bytes; probabilities of few classes shrink to almost nothing
MOST_ARRAYS = 100_000  # arrays in one .npz file; a checkpoint has one for each weight
FREE_GRAPH = 32 * 1024**2  # bytes of a graph's text, without its weights
MOST_MESSAGE = 2**31 - 1  # bytes of a message of Protocol Buffers
GRAPH_RATIO = 20
FREE_WEIGHTS = 64 * 1024**2  # bytes of weights that a model may have beyond what its file holds
MOST_ELEMENTS = 2**28  # numbers that one layer returns for one image: 1 GiB
MOST_THUMBNAILS = 64 * 1024**2  # bytes; they are all on one page
