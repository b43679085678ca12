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

# --- run folders and exports ---

MOST_JSON = 32 * 1024**2  # bytes of a text of settings, figures, labels or a manifest
MOST_ROWS = 2_000_000  # of predictions.csv, as a report reads them
FREE_ARRAYS = 512 * 1024**2  # probabilities of few classes shrink to almost nothing
MOST_ARRAYS = 100_000  # in one .npz file: a checkpoint has one for each weight
FREE_GRAPH = 32 * 1024**2  # a graph's text, without its weights
MOST_GRAPH = 2**31 - 1  # bytes of a message of Protocol Buffers
GRAPH_RATIO = 20
FREE_WEIGHTS = 64 * 1024**2  # that a model may have beyond what its file holds
MOST_ELEMENTS = 2**28  # of what one layer gives for one image: 1 GiB
MOST_THUMBNAILS = 64 * 1024**2  # they are all on one page
