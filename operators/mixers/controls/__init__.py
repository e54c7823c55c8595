"""Controls: what a comparison needs beside real mixers."""
