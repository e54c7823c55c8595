"""Images in folders and tables: finding them, reading their labels, telling which are damaged."""
