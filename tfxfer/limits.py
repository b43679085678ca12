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
MOST_EXTRA_CHANNELS = 4  # of a JPEG XL beside its colours: alpha, depth; each takes a picture's memory

# --- files that are read whole ---

# Of one image file: MOST_PIXELS of four bytes each, not compressed, are 192 MiB.
MOST_BYTES = 256 * 1024**2
MOST_TABLE_BYTES = 256 * 1024**2  # of a CSV table: some two million rows

# --- archives ---

MOST_MEMBERS = 10_000
MOST_UNPACKED = 32 * 1024**3
MOST_RATIO = 100  # weights hardly shrink; a file of zeros shrinks a thousandfold
FREE_UNPACKED = 64 * 1024**2  # small archives may shrink as they like
