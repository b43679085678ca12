"""How much is too much: the bounds that a file, an answer or a wait may reach. Numbers only.

A stranger's file is small where it is sent and large where it is unpacked. Each bound here lies above
everything that honest files were seen to need, and below what hurts a machine with 4 GB of memory.
"""

# --- images ---

# 8,192 x 6,144, the largest photo of the phones that say "50 megapixels". One picture of that size
# takes 0.6 GB as float32.
MOST_PIXELS = 8192 * 6144

# --- files that are read whole ---

MOST_BYTES = 512 * 1024**2  # of one image file

# --- archives ---

MOST_MEMBERS = 10_000
MOST_UNPACKED = 32 * 1024**3
MOST_RATIO = 100  # weights hardly shrink; a file of zeros shrinks a thousandfold
FREE_UNPACKED = 64 * 1024**2  # small archives may shrink as they like

# --- SavedModels ---

MOST_CONSTANTS = (
    1024**3
)  # bytes in memory of all constants in a graph; TensorFlow saves no more than 2 GB
