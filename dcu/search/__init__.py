"""Search by similarity: an index of embeddings on the disk, its near-duplicates, a page of what was found."""
